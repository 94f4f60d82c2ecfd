"""Limits on the number of connections and on the time that a client takes to send its request."""

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ramify.errors import InputError

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

HEADER_SECONDS = 10.0
BODY_SECONDS = 60.0
MOST_CONNECTIONS = 256
_LEAST_DESCRIPTORS = 24


def room_for_connections() -> int:
    """How many connections the process has file descriptors for, at most :data:`MOST_CONNECTIONS`.

    A third of the free ones is for connections, a third for the temporary files of large uploads, and a third for
    connections that are accepted before others are closed.

    Raises:
        InputError: there are too few descriptors.
    """
    try:
        import resource
    except ImportError:  # Windows
        return MOST_CONNECTIONS
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    in_use = Path("/proc/self/fd")
    free = allowed - (len(list(in_use.iterdir())) if in_use.is_dir() else 64)
    if free < _LEAST_DESCRIPTORS:
        raise InputError(
            f"serve: got {allowed} file descriptors, {max(0, free)} of them free (ulimit -n); accepted: at least "
            f"{_LEAST_DESCRIPTORS} free ones"
        )
    return min(MOST_CONNECTIONS, free // 3)


class Connection(H11Protocol):
    """A uvicorn connection with time limits for headers and body, and a limit on the number of connections.

    Beyond that limit, the connection that has waited longest for its client is closed, first among those that have
    never sent a whole request.
    """

    most = MOST_CONNECTIONS

    def __init__(
        self,
        config: "Config",
        server_state: "ServerState",
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.waits_since = time.monotonic()
        self.served = False
        self._phase: object = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waits(self) -> bool:
        """Whether headers or body are incomplete."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.transport.is_closing()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        live = [other for other in others if not other.transport.is_closing()]
        if len(live) >= self.most:
            waiting = [other for other in live if other.waits]
            oldest = min(waiting, key=lambda other: (other.served, other.waits_since), default=self)
            oldest.give_up(503, f"connections: got more than {self.most}; accepted: up to {self.most} at a time")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self.served = True
        super().on_response_complete()
        self._watch()

    def shutdown(self) -> None:
        """End the connection with the server, at once where the request is incomplete."""
        if self.waits:
            self.transport.abort()
        else:
            super().shutdown()

    def give_up(self, status: int, sentence: str) -> None:
        """Close the connection, with a sentence unless a reply has begun."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            reason = {408: "Request Timeout", 503: "Service Unavailable"}[status]
            body = json.dumps({"error": sentence})
            head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
            self.transport.write(f"{head}\r\nconnection: close\r\n\r\n{body}".encode())
        self._stop_timer()
        if self.transport.get_write_buffer_size() > 0:  # the client does not read
            self.transport.abort()
        else:
            self.transport.close()

    def _watch(self) -> None:
        """Start the time limit of the next part of the request."""
        state = self.conn.their_state
        phase = (state, self.cycle)
        if phase == self._phase or self.transport.is_closing():
            return
        self._phase = phase
        self._stop_timer()
        self.waits_since = time.monotonic()
        if state in (h11.IDLE, h11.SEND_BODY):
            part, seconds = ("headers", HEADER_SECONDS) if state is h11.IDLE else ("body", BODY_SECONDS)
            self._timer = self.loop.call_later(seconds, self._too_slow, part, seconds)

    def _too_slow(self, part: str, seconds: float) -> None:
        if not self.transport.is_closing():
            self.give_up(408, f"{part}: not complete after {seconds:g} s")
        else:
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
