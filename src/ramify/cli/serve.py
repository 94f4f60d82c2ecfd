"""``ramify serve``: a page to try a network, and the same as JSON."""

from typing import Annotated

import typer

from ramify.cli.common import RUNS_DIR, AsJson, ExportName, RunsDir, Threads, Threshold, say, say_json, threads_here


def serve(
    name: ExportName,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 lets others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 finds a free one.")] = 8000,
    threshold: Threshold = None,
    threads: Threads = None,
    upload_mb: Annotated[
        float, typer.Option("--upload_mb", min=0.001, max=1000, help="The largest picture file, in MB.")
    ] = 10,
    samples: Annotated[int, typer.Option(min=0, max=24, help="Test pictures of the run that the page offers.")] = 6,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow_origin", metavar="URL", help="A site whose pages may ask, as https://labels.example; repeatable."
        ),
    ] = None,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Try a network in the browser: drop a picture, see each exit's opinion, where it left, and what that saved.

    The same answers come as JSON from `POST /api/predict`; `/openapi.json` describes it. Ctrl-C ends the server.

    Examples:

    - `ramify serve digits-iterative`
    - `ramify serve photos-dense --threshold 0.8 --port 0`
    - `ramify serve runs/photos-dense/onnx --port 9000`
    - `curl -F file=@cat.jpg http://127.0.0.1:8000/api/predict`
    """
    from ramify.answer.answerer import answerer
    from ramify.answer.samples import pictures_to_try
    from ramify.run.saved import run_behind
    from ramify.serve.guard import Origins
    from ramify.serve.run import serve
    from ramify.serve.server import Limits, need_server

    need_server()
    origins = Origins(tuple(name.lower().rstrip("/") for name in allow_origin or ()))
    folder = runs_dir or RUNS_DIR
    network = answerer(name, folder, threshold, threads_here(threads))
    run = run_behind(name, folder)
    offered = pictures_to_try(run, network, samples) if run is not None else ()

    def ready(address: str) -> None:
        if as_json:
            say_json(
                {"name": network.name, "engine": network.engine, "policy": network.description, "address": address}
            )
            return
        say(f"{network.name} answers at {address} (Ctrl-C ends it)")
        say(network.description)

    limits = Limits(upload_bytes=round(upload_mb * 1_000_000))
    serve(network, host, port, limits=limits, samples=offered, origins=origins, ready=ready)
    if not as_json:
        say("ended")
