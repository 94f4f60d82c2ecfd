"""A network served to browsers and programs, until it is interrupted."""

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ramify.answer.answerer import Answerer
from ramify.answer.samples import Sample
from ramify.errors import InputError
from ramify.serve.guard import Hosts, Origins
from ramify.serve.server import Limits, app, need_server

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

_LOG = logging.getLogger("ramify.serve")


def serve(
    network: Answerer,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    limits: Limits | None = None,
    samples: Sequence[Sample] = (),
    origins: Origins | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve :func:`ramify.serve.server.app` until the process is interrupted.

    Args:
        network: who answers.
        host: the address to listen on. On any other than this machine's own, everybody who reaches it may ask.
        port: 0 for a free one.
        limits: what is accepted.
        samples: pictures that the page offers.
        origins: which sites' pages may ask; None for this server's own page.
        ready: called with the address of the page, once it answers there.

    Raises:
        InputError: ``host`` and ``port`` cannot be listened on, the process has too few file descriptors, or a
            package of the extra ``serve`` is missing.
    """
    made = app(network, limits, samples, hosts_of(host), origins)
    with listening(host, port) as sock:
        server = server_of(made)
        if ready is not None:
            shown = f"[{host}]" if ":" in host else host
            ready(f"http://{shown}:{sock.getsockname()[1]}/")
        with _ended_as_by_keyboard(), suppress(KeyboardInterrupt):
            asyncio.run(_serve(server, sock))


def server_of(made: "FastAPI") -> "uvicorn.Server":
    """uvicorn for ``made``, with a bound on connections and time limits (see :mod:`ramify.serve.connections`).

    Raises:
        InputError: the process has too few file descriptors, or a package of the extra ``serve`` is missing.
    """
    need_server()
    import uvicorn

    from ramify.serve.connections import Connection, room_for_connections

    class Bounded(Connection):
        most = room_for_connections()

    config = uvicorn.Config(
        made,
        http=Bounded,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # Also how many connections are accepted in one go, before those that wait longest make room.
        backlog=max(1, Bounded.most // 4),
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(config)


async def _serve(server: "uvicorn.Server", sock: socket.socket) -> None:
    def one_line(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        _LOG.error("%s (%s)", context["message"], context.get("exception", "no more is known"))

    asyncio.get_running_loop().set_exception_handler(one_line)
    await server.serve(sockets=[sock])


@contextmanager
def _ended_as_by_keyboard() -> Iterator[None]:
    """While it lasts, SIGTERM ends the process as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; connections wait in it until somebody serves them.

    Raises:
        InputError: it cannot.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"serve: cannot listen on {host} port {port} ({reason}); accepted: an address of this machine, "
            "and a port that is free (--port 0 finds one)"
        ) from error


def hosts_of(host: str) -> Hosts:
    """Which names a server that listens on ``host`` answers to.

    Example:
        >>> sorted(hosts_of("gpu7").names)
        ['127.0.0.1', '::1', 'gpu7', 'localhost']
    """
    own = Hosts().names
    if host in ("", "0.0.0.0", "::"):
        return Hosts(own | {socket.gethostname().lower()}, any_address=True)
    return Hosts(own | {host.lower()})
