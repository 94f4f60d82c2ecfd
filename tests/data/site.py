"""A local web server whose faults a test chooses."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What is served, how badly, and what was asked for.

    Attributes:
        address: base address.
        files: contents by name.
        drops: for a name, after how many bytes the next answers break off.
        knows_range: whether it goes on in the middle where asked to.
        refuses_range: whether it answers 416 to that.
        asked: (name, Range header) of each request.
        sent: bytes of content sent.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    drops: dict[str, list[int]] = field(default_factory=dict)
    knows_range: bool = True
    refuses_range: bool = False
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0


@contextlib.contextmanager
def serving() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, asked = self.path.lstrip("/"), self.headers.get("Range")
            site.asked.append((name, asked))
            if name not in site.files:
                self.send_error(404)
                return
            content, start = site.files[name], 0
            if asked and site.refuses_range:
                self.send_error(416)
                return
            if asked and site.knows_range:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            drops = site.drops.get(name, [])
            body = content[start : start + drops.pop(0)] if drops else content[start:]
            site.sent += len(body)
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
