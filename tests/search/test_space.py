"""The space: read, written, refused with every reason at once, and drawn from."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.config.read import read_config
from ramify.config.rescaling import rising
from ramify.errors import ConfigError
from ramify.search.draw import structure_of_gaps, suggest
from ramify.search.sampling import propose
from ramify.search.space import parse_space, read_space, ready_spaces, space_yaml

SMALL = "vary: {train.learning_rate: {log: [0.01, 0.1]}}\n"


@dataclass
class Fixed:
    """Draws a fixed share of every range, and notes what it was asked for."""

    share: float
    asked: list[str] = field(default_factory=list)

    def suggest_categorical(self, name: str, choices: "list[str] | tuple[str, ...] | object") -> str:
        assert isinstance(choices, list)
        self.asked.append(name)
        return str(choices[min(int(self.share * len(choices)), len(choices) - 1)])

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.asked.append(name)
        return float(low * (high / low) ** self.share if log else low + self.share * (high - low))

    def suggest_int(self, name: str, low: int, high: int) -> int:
        self.asked.append(name)
        return low + round(self.share * (high - low))


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_space(text)
    return caught.value.problems


NUMBERS = st.tuples(st.floats(1e-4, 0.5), st.floats(0.6, 0.99))
ENTRIES = {
    "train.learning_rate": st.one_of(
        NUMBERS.map(lambda pair: {"log": list(pair)}), NUMBERS.map(lambda pair: {"float": list(pair)})
    ),
    "network.channels": st.one_of(
        st.lists(st.integers(1, 64), min_size=1, unique=True).map(lambda values: {"choice": values}),
        st.just({"int": [2, 9]}),
    ),
    "prune.enabled": st.just({"choice": [False, True]}),
    "prune.keep_ratio": NUMBERS.map(lambda pair: {"float": list(pair), "if": "prune.enabled"}),
    "prune.criterion": st.just({"choice": ["snip", "erk"], "if": {"prune": {"enabled": True}}}),
    "network.structure": st.just({"choice": [[1, 0, 1], [0, 1]]}),
}


@given(
    vary=st.fixed_dictionaries({}, optional=ENTRIES).filter(bool),
    objectives=st.lists(
        st.sampled_from(["accuracy", "macs", "weights", "parameters", "latency"]), min_size=1, max_size=3, unique=True
    ),
    constraints=st.lists(st.sampled_from(["weights <= 50_000", "accuracy >= 90 %", "macs < 1e6"]), unique=True),
    sampler=st.sampled_from(["tpe", "nsgaii", "gp", "random"]),
    rungs=st.sampled_from([None, [3, 9], [9]]),
)
def test_what_is_written_reads_back_equal(
    vary: object, objectives: list[str], constraints: list[str], sampler: str, rungs: list[int] | None
) -> None:
    import yaml

    document = {
        "base": {"network": {"kind": "full_ic"}, "prune.epochs": [2]},
        "vary": vary,
        "objectives": objectives,
        "constraints": constraints,
        "sampler": sampler,
        "epochs": 9,
        "rungs": rungs,
    }
    space = parse_space(yaml.safe_dump(document))
    again = parse_space(space_yaml(space))
    assert again == space
    assert space_yaml(again) == space_yaml(space)


@pytest.mark.parametrize("name", sorted(ready_spaces()))
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_the_ready_spaces_give_configurations(name: str, share: float) -> None:
    space = read_space(name)
    assert parse_space(space_yaml(space)) == space
    config = read_config(overrides=suggest(space, Fixed(share)))
    assert config.train.epochs == space.epochs


def test_everything_wrong_is_told_at_once() -> None:
    found = problems(
        """
base: {train.epohcs: 3, data: {batch_size: 1}}
vary:
  train.learning_rat: {log: [0.1, 0.2]}
  train.learning_rate: {log: [0.1, 0.01]}
  network.channels: {choice: []}
  network.kind: {choice: [densee]}
  train.momentum: {flot: [0, 0.5]}
  structure: {cells: [3, 1], exits: [1, 2]}
  growth.init: {choice: [random], if: prune.enabld}
objectives: [accuracy, accuracy]
constraints: [small, wieghts <= 4]
rungs: [3, 2]
smapler: tpe
sampler: annealing
"""
    )
    text = "\n".join(found)
    for sentence in (
        "unknown name smapler; nearest: sampler",
        "base: unknown key train.epohcs; nearest known key: train.epochs",
        "base: data.batch_size: got 1; accepted: a whole number >= 2",
        "vary: unknown name train.learning_rat; nearest: train.learning_rate",
        "vary: train.learning_rate: log: got [0.1, 0.01]; accepted: [low, high] with low < high",
        "vary: network.channels: choice: got []; accepted: a list of one value or more",
        "vary: network.kind: got 'densee'; accepted: dense, iterative, full_ic, full",
        "vary: train.momentum: unknown name flot; nearest: float",
        "vary: structure: cells: got [3, 1]",
        "vary: growth.init: if: unknown name prune.enabld; nearest: prune.enabled",
        "objectives: got [accuracy, accuracy]; accepted: each objective once, and accuracy is there twice",
        "constraints: got 'small'; accepted: an objective, <=, >=, < or >, and a number",
        "constraints: unknown name wieghts; nearest: weights",
        "rungs: got [3, 2]",
        "sampler: got 'annealing'; accepted: tpe, nsgaii, gp, random",
    ):
        assert sentence in text
    assert len(found) == 15


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1, 2]", "accepted: a mapping"),
        ("vary: {", "is not YAML"),
        ("objectives: [accuracy]", "vary: got null; accepted: at least one key"),
        (SMALL + "objectives: [flops]", "unknown name flops"),
        (SMALL + "objectives: []", "one to three"),
        (SMALL + "base: {data.valid_fraction: 0}", "more than 0, as trials are compared on validation pictures"),
        (SMALL + "base: {train.epochs: 3}", "train.epochs is set by the search"),
        (SMALL + "base: {train.learning_rate: 3}", "stands in base and in vary"),
        (SMALL + "epochs: 0", "epochs: got 0; accepted: a whole number >= 1"),
        (SMALL + "max_drop: true", "max_drop: got true"),
        ("vary: {train.weight_decay: {log: [0, 1]}}", "numbers > 0"),
        ("vary: {network.channels: {int: [1.5, 3]}}", "two whole numbers"),
        ("vary: {network.channels: {choice: [4, 4]}}", "each value once"),
        ("vary: {network.channels: 4}", "network.channels: got 4; accepted: {choice: [...]}"),
        ("vary: {prune.keep_ratio: {float: [0.5, 2]}}", "got 2; accepted: a number in (0, 1]"),
        ("vary: {growth_times: {float: [0.5, 2]}}", "shares in (0, 1]"),
        ("vary: {structure: {cells: [2, 3], exits: [5, 6]}}", "from at most 3 on"),
        (
            "vary: {structure: {cells: [2, 3], exits: [1, 2]}, network.structure: {choice: [[1]]}}",
            "structure and network.structure vary both",
        ),
        (
            "vary: {prune.enabled: {choice: [true], if: {prune.reinit: true}}, "
            "prune.reinit: {choice: [true], if: prune.enabled}}",
            "wait for each other",
        ),
    ],
)
def test_a_fault_is_one_sentence(text: str, sentence: str) -> None:
    [found] = problems(text)
    assert sentence in found


def test_a_condition_decides_what_is_drawn() -> None:
    text = """
vary:
  prune.keep_ratio: {float: [0.1, 0.9], if: prune.enabled}
  prune.enabled: {choice: [false, true]}
  growth.init: {choice: [random, identity], if: {network.kind: [iterative, dense]}}
base: {prune.epochs: [3]}
"""
    space = parse_space(text)
    without, pruned = Fixed(0.0), Fixed(0.9)
    assert not any("keep_ratio" in override for override in suggest(space, without))
    assert any("keep_ratio" in override for override in suggest(space, pruned))
    assert pruned.asked[0] == "prune.enabled"
    assert "growth.init" in without.asked


def test_ratios_for_each_stage_follow_the_structure() -> None:
    text = """
vary:
  keep_ratio_by_stage: {float: [0.2, 0.8]}
  structure: {cells: [4, 6], exits: [3, 3]}
  growth_times: {float: [0.1, 0.5]}
base: {prune: {enabled: true, policy: iterative, epochs: [5]}}
epochs: 10
"""
    config = read_config(overrides=suggest(parse_space(text), Fixed(0.5)))
    assert isinstance(config.prune.keep_ratio, tuple)
    assert len(config.prune.keep_ratio) == config.network.exits == 3
    assert config.growth.epochs == (4, 5)


def test_growth_follows_the_exits_of_a_published_architecture() -> None:
    text = "vary: {network.cells: {choice: [seed, resnet56]}, growth_times: {float: [0.1, 0.9]}}\nepochs: 20"
    for share, exits in ((0.0, 4), (0.9, 7)):
        config = read_config(overrides=suggest(parse_space(text), Fixed(share)))
        assert (config.network.exits, len(config.growth.epochs or ())) == (exits, exits - 1)


@given(st.integers(1, 12).flatmap(lambda cells: st.tuples(st.just(cells), st.integers(1, cells))), st.data())
def test_exits_stand_behind_as_many_cells_as_asked(size: tuple[int, int], data: st.DataObject) -> None:
    cells, internal = size
    gaps = data.draw(st.lists(st.floats(0.1, 1.0), min_size=internal + 1, max_size=internal + 1))
    structure = structure_of_gaps(cells, gaps)
    assert len(structure) == cells
    assert sum(structure) == internal


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8).map(sorted), st.integers(9, 12))
def test_growth_epochs_rise_within_the_epochs(wanted: list[int], last: int) -> None:
    found = rising(wanted, 2, last)
    assert list(found) == sorted(set(found))
    assert found[0] >= 2
    assert found[-1] <= last


def test_draws_that_the_configuration_refuses_are_drawn_again() -> None:
    # Of the kinds, one does not grow and so takes no growth.epochs.
    text = "vary: {network.kind: {choice: [full_ic, iterative]}, train.momentum: {float: [0.1, 0.9]}}\n"
    space = parse_space(text + "base: {growth.epochs: [3, 4, 5]}\nsampler: random")
    drawn = [propose(parse_space(space_yaml(space).replace("seed: 0", f"seed: {seed}")), []) for seed in range(8)]
    assert all("network.kind='iterative'" in overrides for _, overrides, _ in drawn)
    assert any(refused for _, _, refused in drawn)
