"""Engines of runs and trials: ``concurrent.futures`` executors that may lose their workers.

The workers are processes on this machine, with ``dask://host:port`` those of a Dask cluster, and with ``slurm``,
``pbs``, ``lsf`` or ``sge`` jobs of the batch system through dask-jobqueue. A worker takes one task at a time. Where one
dies, its task is started again on another and continues from its checkpoint.
"""

import contextlib
import importlib
import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from concurrent.futures.process import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Generic, ParamSpec, Protocol, TypeVar

import torch

from ramify.config.yamltext import to_text
from ramify.errors import ConfigError, InputError, RunError, first_line
from ramify.needs import need
from ramify.search.storage import ANSWER_SECONDS
from ramify.search.vary import read_mapping

BATCH_SYSTEMS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
"""Values of ``--on`` besides ``dask://host:port``, and the class of dask-jobqueue."""
DEATHS = 5
"""Deaths of its worker in a row, without an epoch in between, after which a task is given up."""


class Cluster(Protocol):
    """The methods of a cluster of dask-jobqueue that are used."""

    def adapt(self, *, minimum_jobs: int, maximum_jobs: int) -> object: ...
    def job_script(self) -> str: ...
    def close(self) -> object: ...


K = TypeVar("K")
P = ParamSpec("P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class TaskEngine:
    """An executor, its number of workers, the errors by which it reports a dead worker, and its name in sentences."""

    executor: Executor
    workers: Callable[[], int]
    died: tuple[type[BaseException], ...]
    words: str


@contextlib.contextmanager
def open_engine(
    on: str | None = None, workers: int = 1, options: Path | None = None, *, gpus: bool = True
) -> Iterator[TaskEngine]:
    """An engine for a ``with`` block; processes that it started end with the block.

    Args:
        on: None for processes here, ``dask://host:port``, or one of :data:`BATCH_SYSTEMS`.
        workers: processes here, or jobs of a batch system; ignored for a Dask cluster.
        options: a YAML file with arguments for the class of dask-jobqueue, such as ``queue`` and ``walltime``.
        gpus: whether tasks may use GPUs; each process here then has one to itself.

    Raises:
        InputError: the engine is unknown or does not answer, or its packages are not installed.
    """
    if options is not None and on not in BATCH_SYSTEMS:
        raise ConfigError(f"--engine_options: got {options}; accepted: with --on {', '.join(BATCH_SYSTEMS)}")
    if on is None:
        with _processes(workers, gpus) as engine:
            yield engine
    elif on in BATCH_SYSTEMS:
        words = f"{workers} {on} job{'' if workers == 1 else 's'}"
        accepts, where = "a mapping such as {queue: gpu}", "--engine_options: "
        arguments = {} if options is None else read_mapping(options, accepts, where)
        with batch_cluster(on, arguments) as cluster, _dask(cluster, words) as engine:
            # Jobs are requested once there are tasks, and again where they end.
            ask = cache(partial(cluster.adapt, minimum_jobs=workers, maximum_jobs=workers))
            yield replace(engine, workers=lambda: engine.workers() if ask() else 0)
    elif on.startswith("dask://"):
        with _dask(f"tcp://{on.removeprefix('dask://')}", on) as engine:
            yield engine
    else:
        raise ConfigError(f"--on: got {on!r}; accepted: dask://host:port, {', '.join(BATCH_SYSTEMS)}")


class Processes(Executor):
    """``count`` processes on this machine, each a pool of one: where one dies, only its own task is lost."""

    def __init__(self, count: int, gpus: int = 0) -> None:
        # Forked from a server that has imported torch but never used it: fast and safe.
        methods = multiprocessing.get_all_start_methods()
        self._context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if hasattr(self._context, "set_forkserver_preload"):
            self._context.set_forkserver_preload(["ramify.search.task", "torch._dynamo"])  # as every optimizer needs
        self._gpus = gpus
        self._threads = max(1, (os.cpu_count() or 1) // count)
        self._pools = [self._pool(i) for i in range(count)]
        self._free: list[Callable[[], bool]] = [lambda: True] * count

    def submit(self, fn: Callable[P, _T], /, *args: P.args, **kwargs: P.kwargs) -> Future[_T]:
        """Start ``fn`` in a free process, or queue it for the first one."""
        at = next((i for i, is_free in enumerate(self._free) if is_free()), 0)
        try:
            future = self._pools[at].submit(fn, *args, **kwargs)
        except BrokenExecutor:
            self._pools[at].shutdown(wait=False)
            self._pools[at] = self._pool(at)
            future = self._pools[at].submit(fn, *args, **kwargs)
        self._free[at] = future.done
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Kill the processes; their files stay."""
        for pool in self._pools:
            for process in list((getattr(pool, "_processes", None) or {}).values()):
                process.kill()
            pool.shutdown(wait=wait, cancel_futures=cancel_futures)

    def _pool(self, at: int) -> ProcessPoolExecutor:
        device = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if self._gpus else []
        one = (device[at] if at < len(device) and device[at] else str(at)) if self._gpus else None
        start = partial(_begin_process, one, self._threads)
        return ProcessPoolExecutor(1, mp_context=self._context, initializer=start)


def _begin_process(gpu: str | None, threads: int) -> None:
    """Leave Ctrl-C to the parent, die with it, and use one GPU and a share of the cores."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _processes(workers: int, gpus: bool) -> Iterator[TaskEngine]:
    devices = torch.cuda.device_count() if gpus else 0
    if devices and workers > devices:
        raise ConfigError(f"--workers: got {workers}; accepted: up to {devices}, one a GPU, or train.device=cpu")
    executor = Processes(workers, devices)
    try:
        yield TaskEngine(executor, lambda: workers, (BrokenExecutor,), "this machine")
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _dask(cluster: object, words: str) -> Iterator[TaskEngine]:
    need("search", "distributed")
    from distributed import Client
    from distributed.scheduler import KilledWorker

    try:
        client = Client(cluster, timeout=ANSWER_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(f"--on: {words} does not answer ({first_line(error)})") from None
    latest = [0.0, 0]

    def count() -> int:
        # The scheduler is asked at most once a second.
        if time.monotonic() - latest[0] > 1:
            try:
                threads = client.nthreads()
            except (OSError, TimeoutError) as error:
                raise RunError(f"{words}: its scheduler is gone ({error})") from None
            many = [f"{number} threads at {address}" for address, number in threads.items() if number != 1]
            if many:
                accepted = "workers that take one task (dask worker ADDRESS --nthreads 1)"
                raise InputError(f"--on: got a worker with {many[0]}; accepted: {accepted}")
            latest[:] = [time.monotonic(), len(threads)]
        return int(latest[1])

    try:
        yield TaskEngine(client.get_executor(pure=False), count, (KilledWorker,), words)
    finally:
        with contextlib.suppress(OSError, TimeoutError):
            client.close(timeout=ANSWER_SECONDS)


@contextlib.contextmanager
def batch_cluster(system: str, options: Mapping[str, object]) -> Iterator[Cluster]:
    """The cluster of dask-jobqueue for a batch system; a job is one process with one task at a time.

    Args:
        options: arguments of its class; ``cores`` are threads of the one task.

    Raises:
        ConfigError: an option is not accepted, or one that is needed is missing.
    """
    need("search", "dask_jobqueue")
    module = importlib.import_module("dask_jobqueue")
    if options.get("processes", 1) != 1:
        got = to_text(options["processes"])
        raise ConfigError(f"--engine_options: processes: got {got}; accepted: 1, as a job takes one task")
    arguments = {"cores": 1, "processes": 1, "memory": "8GB", **options}
    extra = arguments.pop("worker_extra_args", [])
    # The last one counts: cores are threads of the task, not more tasks.
    arguments["worker_extra_args"] = [*(extra if isinstance(extra, list) else [extra]), "--nthreads", "1"]
    try:
        cluster = getattr(module, BATCH_SYSTEMS[system])(**arguments)
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        accepted = f"arguments of {BATCH_SYSTEMS[system]}"
        raise ConfigError(f"--engine_options: {first_line(error)}; accepted: {accepted}") from None
    try:
        yield cluster
    finally:
        cluster.close()


@dataclass
class _Started(Generic[K, _T]):
    key: K
    call: Callable[[], _T]
    progress: Callable[[], int]
    reached: int = 0
    deaths: int = 0


class Tasks(Generic[K, _T]):
    """Tasks by key. A task whose worker dies is started again, up to :data:`DEATHS` times without progress.

    Args:
        lost: the result of a task that is then given up, made of the reason.
    """

    def __init__(self, engine: TaskEngine, lost: Callable[[str], _T]) -> None:
        self.engine, self.lost = engine, lost
        self._running: dict[Future[_T], _Started[K, _T]] = {}

    @property
    def running(self) -> list[K]:
        """The keys of the tasks that have not ended."""
        return [started.key for started in self._running.values()]

    @property
    def free(self) -> int:
        """The number of workers without a task."""
        return max(0, self.engine.workers() - len(self._running))

    def start(self, key: K, call: Callable[[], _T], progress: Callable[[], int] = lambda: 0) -> None:
        """Start ``call``; a task whose ``progress`` rises between deaths is never given up."""
        self._submit(_Started(key, call, progress))

    def ended(self, seconds: float) -> list[tuple[K, _T]]:
        """Wait up to ``seconds`` for tasks to end, and return their results by key.

        Raises:
            RunError: the engine is gone.
        """
        results: list[tuple[K, _T]] = []
        for future in wait(list(self._running), seconds, FIRST_COMPLETED).done:
            started = self._running.pop(future)
            try:
                results.append((started.key, future.result()))
            except self.engine.died as error:
                reached = started.progress()
                started.deaths = 1 if reached > started.reached else started.deaths + 1
                started.reached = reached
                if started.deaths < DEATHS:
                    self._submit(started)
                else:
                    why = f"its worker died {DEATHS} times in a row ({type(error).__name__}; out of memory?)"
                    results.append((started.key, self.lost(why)))
            except CancelledError:
                raise RunError(f"{self.engine.words}: its scheduler is gone") from None
        return results

    def _submit(self, started: _Started[K, _T]) -> None:
        try:
            self._running[self.engine.executor.submit(started.call)] = started
        except (RuntimeError, OSError) as error:
            raise RunError(f"{self.engine.words}: takes no task ({error})") from None
