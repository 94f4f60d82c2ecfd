"""The report of odd runs: each has its page, and what is missing is said in a sentence."""

import functools
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.errors import CheckpointError, InputError
from ramify.files import write_atomic
from ramify.ops.exits.analysis import analyze
from ramify.run.derive import child_config, converted_config
from ramify.run.events import EpochDone, Event
from ramify.run.folder import METRICS, read_lines
from ramify.show.report.facts import Facts, read_facts
from ramify.show.report.network import network_section
from ramify.show.report.outcome import outcome_sentence
from ramify.show.report.sections import REPORT_SECTIONS, run_page
from ramify.show.report.thinking import shown_cases, shown_exits
from ramify.show.report.write import report
from ramify.training.run import train
from tests.conftest import edit_config, tiny


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def trained(runs: Path, name: str, *overrides: str) -> Path:
    return Path(train(tiny(f"runs_dir={runs}", f"name={name}", *overrides)).folder)


@pytest.fixture(scope="module")
def plain(runs: Path) -> Path:
    return trained(runs, "plain")


def one_exit(runs: Path, plain: Path) -> Path:
    return trained(runs, "one", "network.kind=full")


def no_validation(runs: Path, plain: Path) -> Path:
    return trained(runs, "unheld", "data.valid_fraction=0")


def converted(runs: Path, plain: Path) -> Path:
    return Path(train(converted_config(plain, "cnn")).folder)


def compacted(runs: Path, plain: Path) -> Path:
    overrides = ["prune.unit=channel", "prune.keep_ratio=0.3", "train.epochs=1"]
    return Path(train(child_config(plain, overrides, compact=True)).folder)


def unfinished(runs: Path, plain: Path) -> Path:
    def stop(event: Event) -> None:
        if isinstance(event, EpochDone) and event.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        train(tiny(f"runs_dir={runs}", "name=stopped"), [stop])
    return runs / "stopped"


def widened(runs: Path, plain: Path) -> Path:
    return trained(runs, "wider", "growth.plan=[wider,deeper,deeper]", "growth.epochs=[2,3,4]", "growth.freeze=before")


def from_before(runs: Path, plain: Path) -> Path:
    """As it was written before memory was recorded."""
    run = trained(runs, "old")
    lines = [{k: v for k, v in line.items() if "memory" not in k} for line in read_lines(run / METRICS)]
    write_atomic(run / METRICS, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
    return run


def far_pictures(runs: Path, plain: Path) -> Path:
    """Its pictures are gone."""
    run = trained(runs, "moved")
    edit_config(run, "source: digits", "source: /gone/pictures")
    return run


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (one_exit, ["The network has one exit: every picture leaves there.", "right at its only exit."]),
        (no_validation, ["this run held none out for validation", "No exit policy was calibrated"]),
        (converted, ["This run trained for no epoch", "right at its only exit."]),
        (compacted, ["Compaction took", "dead channels out"]),
        (unfinished, ["Under way, epoch 2 of 4", "validation pictures", "not grown yet"]),
        (widened, ["widened stage 1", "frozen from epoch 3", "widened before epoch 2"]),
        (from_before, ["Memory was not recorded"]),
        (far_pictures, ["The test pictures could not be answered again", "/gone/pictures"]),
    ],
)
def test_an_odd_run_has_its_page(runs: Path, plain: Path, make: Callable[[Path, Path], Path], told: list[str]) -> None:
    run = make(runs, plain)
    path = report(run)
    assert path == run / "report.html"
    text = unescape(path.read_text())
    for sentence in told:
        assert sentence in text
    assert text.count("<section ") == len(REPORT_SECTIONS)
    assert "None" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)


def test_the_first_sentence_is_true(plain: Path) -> None:
    facts = read_facts(plain)
    assert facts.measured is not None
    last = facts.summary.exits[-1]
    assert last.test is not None
    sentence = outcome_sentence(facts.summary, facts.measured)
    assert sentence.startswith(f"{last.kept:,} weights, {100 * last.test.top1:.1f} % at the last exit; ")
    tops = [each.test.top1 for each in facts.summary.exits if each.test is not None]
    near = [i for i, top in enumerate(tops[:-1]) if top >= tops[-1] - 0.01]
    assert (f"exit {near[0] + 1} alone gets {100 * tops[near[0]]:.1f} %" if near else "no earlier exit") in sentence


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        ((0.3, 0.2, 0.5), "half the pictures answered by exit 2, all of them for 50.0 % of the work and 90.0 % right"),
        ((1.0, 0.0, 0.0), "every picture answered at exit 1 for 50.0 % of the work, 90.0 % right"),
        ((0.6, 0.2, 0.2), "60.0 % of the pictures answered at exit 1, all of them for"),
        ((0.1, 0.1, 0.8), "80.0 % of the pictures answered only at the last exit: 50.0 % of the work, 90.0 % right"),
    ],
)
def test_the_first_sentence_with_a_policy(plain: Path, shares: tuple[float, ...], told: str) -> None:
    facts = read_facts(plain)
    assert facts.measured is not None
    macs = facts.measured.analysis.macs[-1]
    outcome = replace(facts.measured.analysis.oracle, accuracy=0.9, macs=macs / 2, exits=shares)
    assert told in outcome_sentence(facts.summary, replace(facts.measured, outcome=outcome))


NAMES = st.lists(
    st.sampled_from(["<script>alert(1)</script>", "a\"b'c", "<b>&amp;", "猫 ü ∑", "x" * 200, "{{ 7 * 7 }}", "-->"]),
    min_size=10,
    max_size=10,
)


@settings(max_examples=4)  # with ten names each
@given(NAMES, st.sampled_from(['"><script>alert(2)</script>', "naïve <i>run</i>", "{% raw %}"]))
def test_names_of_classes_and_runs_stay_text(plain: Path, classes: list[str], name: str) -> None:
    names = tuple(f"{i} {each}" for i, each in enumerate(classes))
    facts = renamed(read_facts(plain), names, name)
    made = run_page(facts)
    # Names change the words of a page, never its elements.
    assert elements(made) == calm_elements(plain)
    assert "alert(1)</script>" not in made
    assert "alert(2)</script>" not in made
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", made)


@functools.cache
def calm_elements(run: Path) -> dict[str, int]:
    return elements(run_page(renamed(read_facts(run), tuple(f"class {i}" for i in range(10)), "calm")))


def renamed(facts: Facts, classes: tuple[str, ...], name: str) -> Facts:
    assert facts.measured is not None
    assert facts.answers is not None
    answers = replace(facts.answers, card=replace(facts.answers.card, classes=classes))
    found = facts.measured.analysis
    analysis = analyze(answers.logits, answers.test.labels, found.macs, classes, found.milliseconds)
    config = facts.config.model_copy(update={"data": facts.config.data.model_copy(update={"source": name})})
    return replace(
        facts,
        config=config,
        summary=replace(facts.summary, name=name, source=name),
        answers=answers,
        measured=replace(facts.measured, analysis=analysis, source=name),
    )


def elements(made: str) -> dict[str, int]:
    page = re.sub(r"<script[ >].*?</script>", "<script>", made, flags=re.DOTALL)
    tags = re.findall(r"<([a-z][a-z0-9]*)[ >/]", page)
    return {tag: tags.count(tag) for tag in set(tags)}


def test_dense_wiring_is_drawn_as_such(runs: Path, plain: Path) -> None:
    run = trained(runs, "wired", "network.kind=dense")
    body = network_section(read_facts(run))
    # Three cells and the final classifier read all outputs before them, that of the stem included.
    reading = re.findall(r'--reads:(\d+)"><i class="reads">', body)
    assert reading == ["1", "2", "3", "4"]
    assert "--reads" not in network_section(read_facts(plain))


def test_a_damaged_file_is_told(runs: Path) -> None:
    run = trained(runs, "damaged", "train.epochs=3")
    lines = (run / METRICS).read_text().splitlines()
    lines[0] = lines[0].replace('"loss"', '"lost"')
    (run / METRICS).write_text("\n".join(lines) + "\n")
    with pytest.raises(CheckpointError, match=r"metrics.jsonl:1: is damaged"):
        report(run)


def test_memory_is_recorded(plain: Path) -> None:
    for line in read_lines(plain / METRICS):
        assert isinstance(line["memory"], int)
        assert line["memory"] > 1_000_000
        assert line["device_memory"] is None


def test_where_a_report_goes(plain: Path, tmp_path: Path) -> None:
    assert report(plain, out=tmp_path / "a" / "page.html") == tmp_path / "a" / "page.html"
    assert (tmp_path / "a" / "page.html").stat().st_size > 1_000_000
    with pytest.raises(InputError, match=r"a folder; accepted: the name of a file"):
        report(plain, out=tmp_path)
    with pytest.raises(InputError, match="which is no run"):
        report("nobody", runs_dir=plain.parent)
    with pytest.raises(InputError, match="got no run"):
        report([])


@given(st.integers(1, 60))
def test_shown_exits_have_the_first_and_the_last(exits: int) -> None:
    shown = shown_exits(exits)
    assert shown[0] == 0
    assert shown[-1] == exits - 1
    assert list(shown) == sorted(set(shown))
    assert len(shown) == min(exits, 6)


def test_shown_cases_are_of_many_classes(plain: Path) -> None:
    facts = read_facts(plain)
    assert facts.measured is not None
    cases = facts.measured.analysis.overthinking.wasteful_cases or facts.measured.analysis.overthinking.late_cases
    shown = shown_cases(cases)
    assert len(shown) == min(6, len(cases))
    assert len({case.label for case in shown}) == min(6, len({case.label for case in cases}))
    assert [cases.index(case) for case in shown] == sorted(cases.index(case) for case in shown)
    assert asdict(shown[0])["picture"] >= 0
