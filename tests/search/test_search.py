"""Whole searches: the same whether they are interrupted or not, and none the worse for workers that die."""

import contextlib
import json
import shutil
import threading
from collections import Counter
from pathlib import Path

import pytest

from ramify.config.read import read_config
from ramify.errors import InputError, RunError
from ramify.run.folder import locked, read_lines
from ramify.search.coordinator import Notify, StepTaken, WorkBegan, WorkEvent, coordinate
from ramify.search.front import front_of, importances
from ramify.search.goals import Objective
from ramify.search.measure import measure
from ramify.search.space import Space, parse_space
from ramify.search.storage import patiently
from ramify.search.study import STOP, Search, config_of_trial, open_search, start_search
from ramify.show.terminal.front import front_csv, front_json, front_sentences, front_table, plot_front
from tests.search.quick import HERE, quick_step

TRIALS = 5


def work(search: Search, notify: Notify = lambda event: None) -> Search:
    """Coordinate ``search`` with one worker, and leave it to others."""
    try:
        coordinate(search, HERE, notify)
    finally:
        search.close()
    return search


def space(*, limit: int = 120, sampler: str = "tpe", constraints: str = "[]", rungs: str = "[2, 4]") -> Space:
    epochs = rungs.strip("[]").split(",")[-1]
    return parse_space(
        f"""
base:
  data: {{limit: {limit}, batch_size: 32, valid_fraction: 0.2}}
  network.structure: [1, 0, 1]
  train.device: cpu
vary:
  network.channels: {{choice: [2, 3, 4]}}
  train.learning_rate: {{log: [0.02, 0.1]}}
  growth_times: {{float: [0.1, 0.9]}}
objectives: [accuracy, macs, weights]
constraints: {constraints}
epochs: {epochs}
rungs: {rungs}
sampler: {sampler}
"""
    )


def outcome(search: Search) -> list[object]:
    return [(trial.number, trial.params, trial.results, trial.finished) for trial in search.trials()]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A search by one worker that nobody disturbed."""
    search = start_search("calm", space(), TRIALS, searches_dir=tmp_path_factory.mktemp("searches"))
    work(search)
    return search


def test_every_trial_is_finished_and_halving_saves_epochs(done: Search) -> None:
    trials = done.trials()
    assert len(trials) == TRIALS
    assert all(trial.finished and trial.failed is None for trial in trials)
    assert {trial.epochs for trial in trials} == {2, 4}
    front = front_of(done)
    assert front.best
    assert front.waiting == 0
    assert (front.trained, front.full) == (sum(trial.epochs for trial in trials), 4 * TRIALS)
    assert 0 < front.saved < 1
    for trial in trials:
        folder = done.runs / trial.name
        assert [line["epoch"] for line in read_lines(folder / "metrics.jsonl")] == list(range(1, trial.epochs + 1))
        assert not (folder / "summary.json").exists(), "the test pictures were read"


def test_trials_begin_as_earlier_ones_that_they_extend(done: Search) -> None:
    trials = done.trials()
    heirs = [trial for trial in trials if trial.ancestor is not None]
    assert heirs
    for trial in trials:
        config = read_config([done.runs / trial.name / "config.yaml"])
        if trial.ancestor is None:
            assert config.parent is None
            continue
        # Structures are all alike here, so that an heir has its ancestor's channels, and all cells up to its last exit.
        ancestor = trials[trial.ancestor.trial]
        assert ancestor.number < trial.number
        assert trial.ancestor.rung in ancestor.results
        assert trial.ancestor.cells in (1, 3)
        assert trial.params["network.channels"] == ancestor.params["network.channels"]
        assert config.parent == str(done.runs / ancestor.name / "rungs" / str(trial.ancestor.rung))
        assert config.convert == "extend"


def test_nothing_is_inherited_where_that_is_turned_off(tmp_path: Path) -> None:
    search = start_search("alone", space().model_copy(update={"inherit": False}), 3, searches_dir=tmp_path)
    work(search)
    assert [trial.ancestor for trial in search.trials()] == [None] * 3
    assert not list(search.runs.glob("*/rungs"))
    with pytest.raises(InputError, match="it differs in inherit"):
        start_search("alone", space(), 3, searches_dir=tmp_path)


def test_a_trial_whose_ancestor_is_not_at_hand_begins_afresh_and_says_so(done: Search, tmp_path: Path) -> None:
    number = next(trial.number for trial in done.trials() if trial.ancestor is not None)
    search = start_search("calm", space(), TRIALS, searches_dir=tmp_path)

    def tell(event: WorkEvent) -> None:
        for kept in (tmp_path / "calm/runs").glob("*/rungs"):
            shutil.rmtree(kept)
        if isinstance(event, StepTaken) and event.trial == number:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        work(search, tell)
    assert search.trials()[number].ancestor is None
    assert read_config([search.runs / f"trial-{number:04}" / "config.yaml"]).parent is None


def test_the_figures_are_those_of_the_network_that_was_trained(done: Search) -> None:
    best = next(trial for trial in done.trials() if trial.epochs == 4)
    assert measure(done.runs / best.name, done.space.names, done.space.max_drop) == best.values


@pytest.mark.parametrize(
    ("given", "got"), [("{}['x']", r"KeyError\('x'\)"), ("'many'", "'many'"), ("1 / 0.", "Zero.*")]
)
def test_an_objective_of_the_user_that_gives_no_number_is_told(done: Search, given: str, got: str) -> None:
    Path("mine.py").write_text(f"def f(network, valid):\n    return {given}\n")
    with pytest.raises(RunError, match=f"objectives: f: got {got} from mine.py:f; accepted: a number"):
        measure(done.runs / "trial-0000", ["accuracy"], 0.01, [Objective("f", function="mine.py:f")])


def test_sizes_before_growth_are_those_of_the_grown_network(done: Search) -> None:
    for trial in done.trials():
        if len(trial.results) == 2:
            early, late = trial.results.values()
            assert early["weights"] == late["weights"]
            assert early["parameters"] == late["parameters"]


def test_a_search_that_is_broken_off_again_and_again_ends_the_same(done: Search, tmp_path: Path) -> None:
    breaks = Counter[str]()

    def tell(event: WorkEvent) -> None:
        what = f"{type(event).__name__} {event.trial} {event.rung}"
        breaks[what] += 1
        if breaks[what] == 1 and isinstance(event, WorkBegan | StepTaken):
            raise KeyboardInterrupt

    for _ in range(50):
        with contextlib.suppress(KeyboardInterrupt):
            search = work(start_search("calm", space(), TRIALS, searches_dir=tmp_path), tell)
            break
    assert len(breaks) > TRIALS
    assert outcome(search) == outcome(done)
    assert [trial.number for trial in front_of(search).best] == [trial.number for trial in front_of(done).best]


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsgaii", "gp"])
def test_every_sampler_works_and_repeats_itself(sampler: str, tmp_path: Path) -> None:
    outcomes = []
    limits = "[weights <= 3, accuracy >= 20 %]"
    alone = space(sampler=sampler, rungs="[3]", constraints=limits).model_copy(update={"inherit": False})
    for place in ("one", "two"):
        search = start_search("again", alone, 11, searches_dir=tmp_path / place)
        coordinate(search, HERE, step=quick_step)
        search.close()
        outcomes.append(outcome(search))
    assert outcomes[0] == outcomes[1]
    assert len({str(trial.params) for trial in search.trials()}) > 6
    mattered = importances(search)
    assert set(mattered["weights"]) == {"network.channels", "train.learning_rate", "growth_times"}


def test_a_search_that_is_asked_to_leave_goes_on_when_it_is_started_again(tmp_path: Path) -> None:
    search, leave = start_search("left", space(), 1, searches_dir=tmp_path), threading.Event()
    coordinate(search, HERE, lambda event: leave.set(), leave=leave)
    assert not search.trials()[0].finished
    assert (search.folder / STOP).exists()
    search.close()
    # The number of trials, and the space, are those that were asked for.
    search = work(start_search("left", searches_dir=tmp_path))
    assert search.space == space()
    assert [trial.finished for trial in search.trials()] == [True]


def test_a_run_that_a_lost_worker_still_trains_is_waited_for(tmp_path: Path) -> None:
    search = start_search("slow", space(), 1, searches_dir=tmp_path)
    folder = search.runs / "trial-0000"
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(folder))
        threading.Timer(0.5, stack.close).start()
        work(search)
    assert [trial.failed for trial in search.trials()] == [None]
    assert search.trials()[0].finished


def test_one_process_works_on_a_search(tmp_path: Path) -> None:
    search = start_search("mine", space(), 1, searches_dir=tmp_path)
    with pytest.raises(InputError, match="name: got mine, a search that another process works on"):
        start_search("mine", searches_dir=tmp_path)
    assert open_search("mine", searches_dir=tmp_path).trials() == []
    search.close()
    start_search("mine", searches_dir=tmp_path).close()


def test_a_name_belongs_to_one_space(done: Search) -> None:
    with pytest.raises(InputError, match=r"a search with another space \(it differs in sampler\)"):
        start_search("calm", space(sampler="random"), TRIALS, searches_dir=done.folder.parent)
    with pytest.raises(InputError, match=r"which is no search.*nearest: calm"):
        open_search("clam", searches_dir=done.folder.parent)


def test_a_storage_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"storage: postgresql\+psycopg://me:\*\*\*@127.0.0.1:9/none does not answer"):
        start_search("none", space(), 1, storage="postgresql://me:secret@127.0.0.1:9/none", searches_dir=tmp_path)
    with pytest.raises(InputError, match="storage: got 'nonsense'; accepted: an address such as postgresql://"):
        start_search("none", space(), 1, storage="nonsense", searches_dir=tmp_path)


def test_a_constraint_that_nobody_meets_is_said(tmp_path: Path) -> None:
    search = start_search("strict", space(constraints="[weights <= 3]", rungs="[3]"), 2, searches_dir=tmp_path)
    front = front_of(work(search))
    assert front.best == ()
    assert len(front.infeasible) == 2
    assert front_sentences(front)[0].startswith(
        "no trial of 2 meets the constraints (weights <= 3); seen: weights from"
    )


def test_trials_that_fail_are_told_and_too_many_end_the_search(tmp_path: Path) -> None:
    text = (
        "base: {data.source: missing/pictures, network.kind: full}\nvary: {train.learning_rate: {log: [0.01, 0.1]}}\n"
        "objectives: [accuracy]\nepochs: 1"
    )
    search = start_search("broken", parse_space(text), 20, searches_dir=tmp_path)
    with pytest.raises(RunError, match=r"the first 5 trials all failed, the last because of: .*missing/pictures"):
        work(search)
    front = front_of(search)
    assert len(front.failed) == 5
    assert any("5 trials failed" in sentence for sentence in front_sentences(front))


def test_the_configuration_of_a_trial_is_that_of_its_run(done: Search) -> None:
    config = config_of_trial("calm", 1, searches_dir=done.folder.parent)
    assert (config.name, config.runs_dir, config.train.epochs) == ("calm-0001", "runs", 4)
    assert config.network.channels == int(str(done.trials()[1].params["network.channels"]))
    with pytest.raises(InputError, match="trial: got 99; accepted: 0 to 4"):
        config_of_trial("calm", 99, searches_dir=done.folder.parent)


def test_the_front_is_shown_written_and_drawn(done: Search, tmp_path: Path) -> None:
    front, mattered = front_of(done), importances(done)
    assert front_table(front).row_count == len(front.best)
    assert front_csv(front).count("\n") == TRIALS + 1
    told = front_json(front, mattered)
    assert json.loads(json.dumps(told))["epochs_without_halving"] == 4 * TRIALS
    plot_front(front, tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    plot_front(front, tmp_path / "front.pdf")
    assert (tmp_path / "front.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(InputError, match="cannot be written"):
        plot_front(front, tmp_path / "nowhere" / "front.png")


def test_a_database_that_is_away_is_asked_again() -> None:
    from sqlalchemy.exc import OperationalError

    calls = []

    def call() -> str:
        calls.append(1)
        if len(calls) < 2:
            raise OperationalError("select 1", {}, Exception("the connection is closed"))
        return "there"

    assert patiently(call) == "there"
    calls.clear()
    with pytest.raises(RunError, match="storage: does not answer any more"):
        patiently(call, patience=-1)
