"""Runs the server until it is interrupted."""

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
from ramify.serve.server import Limits, app

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
        network: to serve.
        host: the address to listen on; other than the default, everybody who reaches it may send pictures.
        port: 0 for a free one.
        limits, samples, origins: see :func:`~ramify.serve.server.app`.
        ready: called with the address of the page once the server listens.

    Raises:
        InputError: ``host`` and ``port`` cannot be listened on, the process has too few file descriptors, or a
            package of the extra ``serve`` is missing.
    """
    application = app(network, limits, samples, hosts_of(host), origins)
    with listening(host, port) as sock:
        server = server_of(application)
        if ready is not None:
            shown = f"[{host}]" if ":" in host else host
            ready(f"http://{shown}:{sock.getsockname()[1]}/")

        async def run() -> None:
            asyncio.get_running_loop().set_exception_handler(_log_exception)
            await server.serve(sockets=[sock])

        with _sigterm_as_ctrl_c(), suppress(KeyboardInterrupt):
            asyncio.run(run())


def server_of(application: "FastAPI") -> "uvicorn.Server":
    """uvicorn for ``application``, with the limits of :mod:`ramify.serve.connections`.

    Raises:
        InputError: the process has too few file descriptors.
    """
    import uvicorn

    from ramify.serve.connections import Connection, room_for_connections

    class Bounded(Connection):
        most = room_for_connections()

    config = uvicorn.Config(
        application,
        http=Bounded,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # Also how many connections are accepted at once, before old ones are closed.
        backlog=max(1, Bounded.most // 4),
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(config)


def _log_exception(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    _LOG.error("%s (%s)", context["message"], context.get("exception", "no more is known"))


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def listening(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        InputError: the address or the port cannot be listened on.
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
    """The host names of a server that listens on ``host``.

    Example:
        >>> sorted(hosts_of("gpu7").names)
        ['127.0.0.1', '::1', 'gpu7', 'localhost']
    """
    own = Hosts().names
    if host in ("", "0.0.0.0", "::"):
        return Hosts(own | {socket.gethostname().lower()}, any_address=True)
    return Hosts(own | {host.lower()})
