"""Checks on every request: its host name, its origin and its size."""

import asyncio
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ramify.errors import InputError

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS = {
    # Only files of this server, and pictures inside the page.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@/\s]+)(:\d{1,5})?")
_ORIGIN = re.compile(r"https?://[^/\s*]+")


@dataclass(frozen=True)
class Hosts:
    """Accepted values of the ``Host`` header, against DNS rebinding.

    (Starlette's ``TrustedHostMiddleware`` takes names only, and a server on all addresses does not know them all.)

    Attributes:
        names: names and addresses in lower case.
        any_address: accept every IP address, for a server that listens on all of them.
    """

    names: frozenset[str] = frozenset({"localhost", "127.0.0.1", "::1"})
    any_address: bool = False

    def accept(self, header: str) -> bool:
        """Whether ``header``, the value of ``Host``, is accepted.

        Example:
            >>> [Hosts().accept(text) for text in ("127.0.0.1:8000", "[::1]", "evil.example:8000")]
            [True, True, False]
        """
        match = _HOST.fullmatch(header.strip().lower())
        if match is None:
            return False
        name = match[1].strip("[]").removesuffix(".")
        return name in self.names or (self.any_address and _is_address(name))


@dataclass(frozen=True)
class Origins:
    """Sites whose pages may send requests, besides the page of this server.

    Attributes:
        names: as ``https://labels.example`` or ``http://localhost:3000``; ``*`` for all.

    Raises:
        InputError: one is not the origin of a site.
    """

    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.names:
            if name != "*" and _ORIGIN.fullmatch(name) is None:
                raise InputError(
                    f"allow_origin: got {name!r}; accepted: the origin of a site, as https://labels.example or "
                    "http://localhost:3000, or * for all"
                )

    def accept(self, headers: dict[bytes, bytes]) -> bool:
        """Whether a request with these headers comes from an accepted page, or from a program.

        Browsers name the site in ``Origin`` and ``Sec-Fetch-Site``; programs send neither. Links from other sites to
        the page are accepted.

        Example:
            >>> own = {b"host": b"localhost:8000", b"origin": b"http://localhost:8000"}
            >>> Origins().accept(own), Origins().accept({**own, b"origin": b"https://evil.example"})
            (True, False)
        """
        origin = headers.get(b"origin")
        if origin is not None:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            name = origin.decode("latin-1").lower()
            return name in (f"http://{host}", f"https://{host}", *self.names) or "*" in self.names
        if headers.get(b"sec-fetch-site", b"none") in (b"none", b"same-origin"):
            return True
        followed = headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest") == b"document"
        return followed or "*" in self.names


class Guard:
    """ASGI middleware: refuses other hosts, other sites' pages and large bodies; sets the security headers.

    Args:
        app: the application.
        hosts: accepted host names.
        origins: accepted sites.
        most_bytes: limit of ``Content-Length``.
        too_large: the error for a larger body.
    """

    def __init__(self, app: "ASGIApp", *, hosts: Hosts, origins: Origins, most_bytes: int, too_large: str) -> None:
        self.app = app
        self.hosts = hosts
        self.origins = origins
        self.most_bytes = most_bytes
        self.too_large = too_large

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(dict(scope["headers"]))
        if refusal is not None:  # before the body is read; uvicorn discards it
            await problem(*refusal)(scope, receive, send)
            return
        started = False

        async def secured(message: "Message") -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = {name.encode(): value.encode() for name, value in SECURITY_HEADERS.items()}
                message = {**message, "headers": list((headers | dict(message["headers"])).items())}
            await send(message)

        try:
            await self.app(scope, receive, secured)
        except asyncio.CancelledError:
            # Only the end of the server cancels a request.
            if not started:
                await problem(503, "the server ends")(scope, receive, send)

    def _refusal(self, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        host = headers.get(b"host", b"").decode("latin-1")
        if not self.hosts.accept(host):
            accepted = ", ".join(sorted(self.hosts.names)) + (", or an IP address" if self.hosts.any_address else "")
            return 400, f"host: got {host[:100]!r}; accepted: {accepted}"
        if not self.origins.accept(headers):
            origin = headers.get(b"origin", b"another site").decode("latin-1")
            accepted = ", ".join(("this server's own page, or a program", *self.origins.names))
            return 403, f"origin: got {origin[:100]!r}; accepted: {accepted} (--allow_origin lets a site in)"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            return 400, f"content-length: got {length[:20]!r}; accepted: a whole number"
        return (413, self.too_large) if int(length) > self.most_bytes else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def problem(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> "Response":
    """The reply to a refused or failed request."""
    from starlette.responses import JSONResponse

    return JSONResponse({"error": sentence}, status, headers={**SECURITY_HEADERS, **(headers or {})})
