"""A web application to try a network: a page and a JSON endpoint."""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from ramify.answer.answerer import Answerer
from ramify.answer.picture import MAX_PIXELS, read_header, read_picture
from ramify.answer.samples import Sample
from ramify.data.listing import SNIFFED, known_by_content
from ramify.errors import DataError, InputError
from ramify.needs import need
from ramify.serve import replies
from ramify.serve.guard import Guard, Hosts, Origins, problem
from ramify.serve.upload import FIELD, RefusedError, file_name, read_upload, received, too_large
from ramify.version import __version__

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.datastructures import UploadFile
    from starlette.responses import Response

ACCEPTED = "a JPEG, PNG, GIF, BMP, WEBP, TIFF, PPM, HEIC or AVIF file"

_LOG = logging.getLogger("ramify.serve")
_ENVELOPE = 64 * 1024  # bytes of a multipart form around its file
_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Args:
        upload_bytes: of a picture file.
        workers: pictures that are decoded at a time; others wait.

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
    network: Answerer,
    limits: Limits | None = None,
    samples: Sequence[Sample] = (),
    hosts: Hosts | None = None,
    origins: Origins | None = None,
) -> "FastAPI":
    """A page and a JSON endpoint for one network, as an ASGI application.

    ``POST /api/predict`` answers a picture file, ``GET /api/model`` describes the network, ``GET /api/health`` replies
    while the server is up, ``GET /openapi.json`` describes them, and ``GET /`` is the page. Errors are
    ``{"error": "one sentence"}``. Pictures are decoded in parallel and computed one after the other, so the
    milliseconds are those of one picture. Nothing that is received is kept.

    Args:
        network: to serve; see :func:`ramify.answer.answerer.answerer`.
        limits: None for the defaults.
        samples: pictures that the page offers.
        hosts: accepted ``Host`` headers; None for this machine's own.
        origins: which sites' pages may ask; None for this server's own page.

    Raises:
        InputError: a package of the extra ``serve`` is missing.

    Example:
        >>> import ramify
        >>> from ramify.run.checkpoint import Card
        >>> from ramify.run.choice import choose_policy
        >>> from ramify.answer.answerer import TorchAnswerer
        >>> config = ramify.NetworkConfig(kind="full_ic", structure=(1, 0), input_shape=(1, 8, 8), classes=2)
        >>> card = Card(config, stages=2, classes=("cat", "dog"), epoch=0)
        >>> untrained = TorchAnswerer("new", ramify.Network(config), card, choose_policy(card))
        >>> sorted(app(untrained).openapi()["paths"])
        ['/api/health', '/api/model', '/api/predict', '/api/samples/{number}']
    """
    need_server()
    from fastapi import FastAPI
    from starlette.responses import Response
    from starlette.routing import Route

    limits = limits or Limits()
    answering = Answering(network, limits.workers)
    served = FastAPI(
        title=f"ramify: {network.name}",
        version=__version__,
        description="Each exit's opinion of a picture, and where the picture left.",
        # FastAPI's own pages load scripts from other sites.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=answering.lifespan,
        # Of every request; a route adds its own.
        responses=_problems(
            {400: "The request names a host that this server is not.", 403: "It comes from another site's page."}
        ),
    )
    _add_guards(served, limits, hosts or Hosts(), origins or Origins())
    _add_errors(served)
    for path, (name, kind) in _PAGE.items():
        content = files("ramify.serve").joinpath("page", name).read_bytes()
        served.router.routes.append(
            Route(path, Response(content, media_type=kind), methods=["GET"], include_in_schema=False)
        )
    # Gives the thresholds, and warms up the network for the first visitor.
    first = network.opinions(np.zeros(network.input_shape, np.float32))
    accepted = replies.LimitsReply(upload_bytes=limits.upload_bytes, pixels=MAX_PIXELS)
    _add_facts(served, replies.model_reply(network, first, accepted, samples), samples)
    _add_answers(served, answering, limits)
    return served


def _add_guards(served: "FastAPI", limits: Limits, hosts: Hosts, origins: Origins) -> None:
    """Middleware; the last that is added comes first."""
    from starlette.middleware.body_limit import RequestBodyLimitMiddleware
    from starlette.middleware.cors import CORSMiddleware

    most_bytes = limits.upload_bytes + _ENVELOPE
    served.add_middleware(RequestBodyLimitMiddleware, max_body_size=most_bytes)
    if origins.names:
        served.add_middleware(CORSMiddleware, allow_origins=origins.names, allow_methods=["GET", "POST"])
    served.add_middleware(
        Guard, hosts=hosts, origins=origins, most_bytes=most_bytes, too_large=too_large(limits.upload_bytes)
    )


def _add_errors(served: "FastAPI") -> None:
    """Errors as one sentence."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request

    @served.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> "Response":
        return problem(error.status, error.sentence)

    @served.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> "Response":
        first = error.errors()[0]
        return problem(422, f"{first['loc'][-1]}: {first['msg'][:1].lower()}{first['msg'][1:]}")

    @served.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> "Response":
        got = f"{request.method} {request.url.path[:100]}"
        accepted = "GET /, GET /api/model, GET /api/health, POST /api/predict"
        return problem(error.status_code, f"got {got}; accepted: {accepted}", dict(error.headers or {}))

    @served.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> "Response":
        # Nobody reads this, but it keeps a traceback out of the log.
        return problem(400, "the client left before its request was complete")

    @served.exception_handler(OSError)
    async def short(_: Request, error: OSError) -> "Response":
        # Large uploads are temporary files.
        reason = error.strerror or type(error).__name__
        _LOG.error("a request could not be received: %s", reason)
        return problem(503, f"the server cannot take the request now ({reason})")

    @served.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> "Response":
        return problem(500, f"the server failed ({type(error).__name__}); its log says more")


def _add_facts(served: "FastAPI", model: replies.Model, samples: Sequence[Sample]) -> None:
    """The constant replies."""
    from fastapi import Response

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
            raise RefusedError(404, f"number: got {number}; accepted: one of the {len(samples)} pictures")
        return Response(samples[number].png, media_type="image/png")


def _add_answers(served: "FastAPI", answering: "Answering", limits: Limits) -> None:
    """The answer to a picture."""
    from fastapi import Request

    file = {
        "type": "string",
        "format": "binary",
        "description": f"{ACCEPTED}, up to {limits.upload_bytes:,} bytes and {MAX_PIXELS:,} pixels",
    }
    form = {"type": "object", "required": [FIELD], "additionalProperties": False, "properties": {FIELD: file}}

    @served.post(
        "/api/predict",
        summary="Answer one picture",
        responses=_problems(
            {
                408: "The client sent too slowly.",
                413: "The file is too large.",
                415: "The body is not a multipart form, or the file not a picture.",
                422: "The form does not hold one file, or the picture is damaged, too small or too large.",
                503: "The server ends, or has no room for the request.",
            }
        ),
        openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}},
    )
    async def predict(request: Request) -> replies.Answer:
        async with received(request, limits.upload_bytes) as file:
            return await answering.answer(file, limits.upload_bytes)


class Answering:
    """Decodes a few pictures in parallel and computes them one after the other; others are not yet in memory."""

    def __init__(self, network: Answerer, workers: int) -> None:
        self._network = network
        # Lives as long as the application, which may be started and stopped any number of times.
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="ramify-serve")
        self._workers = workers
        self._slots = asyncio.Semaphore(workers)
        self._turn = threading.Lock()
        self._ended = False

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """While the application runs; pictures that still wait at the end are not computed."""
        self._ended = False
        self._slots = asyncio.Semaphore(self._workers)  # of this event loop
        yield
        self._ended = True

    async def answer(self, file: "UploadFile", most_bytes: int) -> replies.Answer:
        """The answer to one file.

        Raises:
            RefusedError: it is not a picture of at most ``most_bytes``.
        """
        async with self._slots:
            content, name = await read_upload(file, most_bytes), file_name(file.filename)
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._work, content, name)

    def _work(self, content: bytes, name: str) -> replies.Answer:
        reason = known_by_content(content[:SNIFFED])
        if reason:
            raise RefusedError(415, f"{name}: is {reason}; accepted: {ACCEPTED}")
        network = self._network
        try:
            header = read_header(content, name)
            picture = read_picture(content, name, network.input_shape, network.reading)
        except DataError as error:
            raise RefusedError(422, " ".join(str(error).split())) from error
        with self._turn:
            if self._ended:
                raise RefusedError(503, "the server ends")
            answers = network.predict(picture[None])
            opinions = network.opinions(picture)
        return replies.answer_reply(network, answers, opinions, header, picture)


def need_server() -> None:
    """Check that the packages of the extra ``serve`` are installed.

    Raises:
        InputError: one is missing.
    """
    need("serve", "fastapi", "uvicorn", "python_multipart")


def _problems(sentences: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": replies.Problem, "description": sentence} for status, sentence in sentences.items()}
