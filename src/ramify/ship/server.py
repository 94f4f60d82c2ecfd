"""A server to try a network: a page, and the same as JSON."""

import asyncio
import importlib.util
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from ramify import __version__
from ramify.errors import DataError, InputError
from ramify.ship import replies
from ramify.ship.answer import Answerer
from ramify.ship.guard import SECURITY_HEADERS, Guard, Hosts
from ramify.ship.picture import MAX_PIXELS, read_header, read_picture
from ramify.ship.samples import Sample
from ramify.ship.upload import FIELD, RefusedError, Upload, begins_as_picture, receive_upload, too_large

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.responses import Response

_ENVELOPE = 64 * 1024  # bytes of a multipart form around its file
_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


@dataclass(frozen=True)
class Limits:
    """What a server takes on.

    Args:
        upload_bytes: of a picture file.
        workers: pictures that are decoded at a time; further ones wait for their turn.

    Raises:
        InputError: one is below 1.
    """

    upload_bytes: int = 10_000_000
    workers: int = min(4, os.cpu_count() or 1)

    def __post_init__(self) -> None:
        for name, value in (("upload_bytes", self.upload_bytes), ("workers", self.workers)):
            if value < 1:
                raise InputError(f"limits.{name}: got {value}; accepted: a whole number >= 1")


def app(
    network: Answerer, limits: Limits | None = None, samples: Sequence[Sample] = (), hosts: Hosts | None = None
) -> "FastAPI":
    """A page and a JSON endpoint for one network, as an ASGI application.

    ``POST /api/predict`` answers a picture file, ``GET /api/model`` tells of the network, ``GET /api/health`` that the
    server is up, ``GET /openapi.json`` describes them, and ``GET /`` is the page. Errors are
    ``{"error": "one sentence"}``. Requests that come at the same time wait for their turn and none is turned away;
    pictures are decoded side by side, and the network computes them one after the other, so that the milliseconds
    are those of one picture. Nothing that is received is kept.

    Args:
        network: who answers (see :func:`ramify.ship.answer.answerer`).
        limits: what is accepted; None for the defaults.
        samples: pictures that the page offers.
        hosts: which ``Host`` a request may name; None for this machine's own.

    Raises:
        InputError: a package of the extra ``serve`` is missing.

    Example:
        >>> import ramify
        >>> from ramify.run.checkpoint import Card
        >>> from ramify.run.choice import choose_policy
        >>> from ramify.ship.answer import TorchAnswerer
        >>> config = ramify.NetworkConfig(kind="full_ic", structure=(1, 0), input_shape=(1, 8, 8), classes=2)
        >>> card = Card(config, stages=2, classes=("cat", "dog"), epoch=0)
        >>> untrained = TorchAnswerer("new", ramify.Network(config), card, choose_policy(card))
        >>> sorted(app(untrained).openapi()["paths"])
        ['/api/health', '/api/model', '/api/predict', '/api/samples/{number}']
    """
    need_server()
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, Response
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    limits = limits or Limits()
    # Its threads end with the application, which may be started and stopped any number of times.
    pool = ThreadPoolExecutor(limits.workers, thread_name_prefix="ramify-serve")
    turn = threading.Lock()
    # Asking every exit once tells the thresholds, and the first visitor does not wait for what is set up only once.
    first = network.opinions(np.zeros(network.input_shape, np.float32))
    model = replies.model_reply(
        network, first, replies.Limits(upload_bytes=limits.upload_bytes, pixels=MAX_PIXELS), samples
    )

    served = FastAPI(
        title=f"ramify: {network.name}",
        version=__version__,
        description="Each exit's opinion of a picture, and where the picture left.",
        # The pages that FastAPI makes of the document fetch their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # What can happen to every request; a route adds its own.
        responses=_problems({400: "The request names a host that this server is not."}),
    )
    served.add_middleware(
        Guard,
        hosts=hosts or Hosts(),
        most_bytes=limits.upload_bytes + _ENVELOPE,
        too_large=too_large(limits.upload_bytes),
    )

    def problem(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": sentence}, status, headers=headers)

    @served.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        return problem(error.status, error.sentence)

    @served.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return problem(422, f"{first['loc'][-1]}: {first['msg'][:1].lower()}{first['msg'][1:]}")

    @served.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        asked = f"{request.method} {request.url.path[:100]}"
        accepted = "GET /, GET /api/model, GET /api/health, POST /api/predict"
        return problem(error.status_code, f"got {asked}; accepted: {accepted}", dict(error.headers or {}))

    @served.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> JSONResponse:
        # Nobody reads this; without it the log would hold a traceback for every visitor who leaves.
        return problem(400, "the client left before its request was complete")

    @served.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        # This one is sent from outside of the guard.
        return problem(500, f"the server failed ({type(error).__name__}); its log says more", SECURITY_HEADERS)

    for path, (name, kind) in _PAGE.items():
        served.add_api_route(path, _file(name, kind), include_in_schema=False)

    @served.get("/api/health", summary="Whether the server is up")
    async def health() -> replies.Health:
        return replies.Health(status="ok")

    @served.get("/api/model", summary="The network: its classes, its exits, and when a picture leaves")
    async def about() -> replies.Model:
        return model

    @served.get(
        "/api/samples/{number}",
        summary="A picture to try, counted from 0",
        response_class=Response,
        responses={
            200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}},
            **_problems({404: "There is no such picture.", 422: "The number is not one."}),
        },
    )
    async def sample(number: int) -> Response:
        if not 0 <= number < len(samples):
            return problem(404, f"number: got {number}; accepted: one of the {len(samples)} pictures")
        return Response(samples[number].png, media_type="image/png")

    @served.post(
        "/api/predict",
        summary="Answer one picture",
        responses=_problems(
            {
                413: "The file is too large.",
                415: "The body is not a multipart form, or the file not a picture.",
                422: "The form does not hold one file, or the picture is damaged, too small or too large.",
            }
        ),
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "multipart/form-data": {
                        "schema": {
                            "type": "object",
                            "required": [FIELD],
                            "additionalProperties": False,
                            "properties": {
                                FIELD: {
                                    "type": "string",
                                    "format": "binary",
                                    "description": f"JPEG, PNG, GIF, BMP, WEBP, TIFF or PPM, up to "
                                    f"{limits.upload_bytes:,} bytes and {MAX_PIXELS:,} pixels",
                                }
                            },
                        }
                    }
                },
            }
        },
    )
    async def predict(request: Request) -> replies.Answer:
        upload = await receive_upload(request, limits.upload_bytes)
        return await asyncio.get_running_loop().run_in_executor(pool, _answer, network, turn, upload)

    return served


def need_server() -> None:
    """Make sure that the packages of the extra ``serve`` are installed, without importing them.

    Raises:
        InputError: one is missing.
    """
    for module, package in (("fastapi", "fastapi"), ("uvicorn", "uvicorn"), ("python_multipart", "python-multipart")):
        if importlib.util.find_spec(module) is None:
            raise InputError(f"serve: needs the package {package}; install it with: pip install 'ramify[serve]'")


def _answer(network: Answerer, turn: threading.Lock, upload: Upload) -> replies.Answer:
    """The answer to one file, in a thread of the pool; ``turn`` is held while the network computes."""
    if not begins_as_picture(upload.content):
        raise RefusedError(
            415, f"{upload.name}: is not a picture; accepted: a JPEG, PNG, GIF, BMP, WEBP, TIFF or PPM file"
        )
    try:
        header = read_header(upload.content, upload.name)
        picture = read_picture(upload.content, upload.name, network.input_shape, network.reading)
    except DataError as error:
        raise RefusedError(422, " ".join(str(error).split())) from error
    with turn:
        found = network.answer(picture[None])
        opinions = network.opinions(picture)
    return replies.answer_reply(network, found, opinions, header, picture)


def _problems(told: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": replies.Problem, "description": sentence} for status, sentence in told.items()}


def _file(name: str, kind: str) -> "Callable[[], Awaitable[Response]]":
    from starlette.responses import Response

    content = files("ramify.ship").joinpath("page", name).read_bytes()

    async def file() -> Response:
        return Response(content, media_type=kind)

    return file
