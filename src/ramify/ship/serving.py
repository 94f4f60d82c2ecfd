"""A network served to browsers and programs, until it is interrupted."""

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from ramify.errors import InputError
from ramify.ship.answer import Answerer
from ramify.ship.guard import Hosts
from ramify.ship.samples import Sample
from ramify.ship.server import Limits, app, need_server


def serve(
    network: Answerer,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    limits: Limits | None = None,
    samples: Sequence[Sample] = (),
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve :func:`ramify.ship.server.app` until the process is interrupted.

    Args:
        network: who answers.
        host: the address to listen on. On any other than this machine's own, everybody who reaches it may ask.
        port: 0 for a free one.
        limits: what is accepted.
        samples: pictures that the page offers.
        ready: called with the address of the page, once it answers there.

    Raises:
        InputError: ``host`` and ``port`` cannot be listened on, or a package of the extra ``serve`` is missing.
    """
    need_server()
    import uvicorn

    made = app(network, limits, samples, hosts_of(host))
    with listening(host, port) as sock:
        config = uvicorn.Config(
            made,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=3,
        )
        if ready is not None:
            shown = f"[{host}]" if ":" in host else host
            ready(f"http://{shown}:{sock.getsockname()[1]}/")
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[sock])


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
