"""What every request passes first: whom it asks for, and how much it brings."""

import asyncio
import ipaddress
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS = {
    # Nothing but this server's own files, and pictures that the page itself holds.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

_DRAIN_SECONDS = 10.0
_DRAIN_TIMES = 8  # as much as is accepted
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@/\s]+)(:\d{1,5})?")


@dataclass(frozen=True)
class Hosts:
    """Which ``Host`` a request may name.

    A page elsewhere can have its own name lead to this machine (DNS rebinding) and then read what the server says.
    It cannot do so with a number, nor with a name that is not its own.

    Attributes:
        names: names and addresses in lower case.
        any_address: whether every address in numbers is accepted, for a server that listens on all of them.
    """

    names: frozenset[str] = frozenset({"localhost", "127.0.0.1", "::1"})
    any_address: bool = False

    def accept(self, header: str) -> bool:
        """Whether ``header``, the value of ``Host``, is one of them.

        Example:
            >>> [Hosts().accept(text) for text in ("127.0.0.1:8000", "[::1]", "evil.example:8000")]
            [True, True, False]
        """
        found = _HOST.fullmatch(header.strip().lower())
        if found is None:
            return False
        name = found[1].strip("[]").removesuffix(".")
        return name in self.names or (self.any_address and _is_address(name))


class TooLargeError(Exception):
    """The body of a request has more bytes than are accepted."""


class Guard:
    """ASGI middleware: refuses strangers' host names and large bodies, and sets the security headers.

    A body is counted while it is read, so that what is too large is never held; ``Content-Length`` refuses it before.

    Args:
        app: what is guarded.
        hosts: which names are accepted.
        most_bytes: of a body.
        too_large: the sentence for a larger one.
    """

    def __init__(self, app: "ASGIApp", *, hosts: Hosts, most_bytes: int, too_large: str) -> None:
        self.app = app
        self.hosts = hosts
        self.most_bytes = most_bytes
        self.too_large = too_large

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if not self.hosts.accept(host):
            accepted = ", ".join(sorted(self.hosts.names)) + (", or an IP address" if self.hosts.any_address else "")
            await _refuse(send, 400, f"host: got {host[:100]!r}; accepted: {accepted}")
            return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            await _refuse(send, 400, f"content-length: got {length[:20]!r}; accepted: a whole number")
            return
        come, started = 0, False

        async def counted() -> "Message":
            nonlocal come
            message = await receive()
            come += len(message.get("body", b""))
            if come > self.most_bytes:
                raise TooLargeError
            return message

        async def secured(message: "Message") -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own = {name for name, _ in message["headers"]}
                extra = [(k.encode(), v.encode()) for k, v in SECURITY_HEADERS.items() if k.encode() not in own]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        try:
            if int(length) > self.most_bytes:
                raise TooLargeError
            await self.app(scope, counted, secured)
        except TooLargeError:
            if not started:
                await _refuse(send, 413, self.too_large, receive, _DRAIN_TIMES * self.most_bytes)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _refuse(send: "Send", status: int, sentence: str, receive: "Receive | None" = None, drain: int = 0) -> None:
    """Reply at once; with ``receive``, then let go by up to ``drain`` bytes that the client is still sending.

    A connection that is closed while its client sends is reset, and the client may never see the reply.
    """
    body = json.dumps({"error": sentence}).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **SECURITY_HEADERS,
    }
    listed = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body, "more_body": receive is not None})
    if receive is None:
        return
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while drain > 0:
                message = await receive()
                drain -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    break
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})
