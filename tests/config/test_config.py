"""The configuration: what is accepted, what is refused, and the sentences."""

import itertools
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ramify.config.keys import accepted, accepts_of, keys, meaning_of, spread_epochs
from ramify.config.network import EXITS_AT, PUBLISHED
from ramify.config.read import read_config, read_configs, to_yaml
from ramify.config.rescaling import rescale
from ramify.config.rules import Config, NetworkConfig, TrainConfig, resolve
from ramify.config.yamltext import Loader, to_text
from ramify.errors import ConfigError


def problems(*overrides: str, files: tuple[Path, ...] = ()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_configs(files, overrides)
    return list(caught.value.problems)


def test_every_key_is_documented() -> None:
    for name, field in keys():
        assert accepts_of(field), name
        assert meaning_of(field), name


def test_the_keys_of_the_design_are_there() -> None:
    wanted = """name seed runs_dir
        data.source data.batch_size data.valid_fraction data.augment data.limit
        network.kind network.structure network.channels network.cell network.exit
        growth.mode growth.epochs growth.init growth.patience growth.min_improvement
        prune.enabled prune.policy prune.criterion prune.keep_ratio prune.min_ratio prune.epochs
        prune.batch_size prune.reinit
        train.epochs train.learning_rate train.milestones train.gammas train.momentum train.weight_decay
        train.device train.precision"""
    assert set(wanted.split()) <= {name for name, _ in keys()}


def test_files_then_overrides(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("train:\n  epochs: 30\n  learning_rate: 1e-3\nnetwork.structure: [0, 1]\n")
    second.write_text("train.epochs: 20\n")
    config = read_config([first, second], ["train.momentum=0.5"])
    assert (config.train.epochs, config.train.learning_rate, config.train.momentum) == (20, 0.001, 0.5)
    assert config.network.structure == (0, 1)


def test_several_documents_are_several_runs(tmp_path: Path) -> None:
    path = tmp_path / "runs.yaml"
    path.write_text("seed: 1\n---\nseed: 2\ntrain: {epochs: 9}\n---\nseed: 3\n")
    configs = read_configs([path], ["network.kind=dense"])
    assert [config.seed for config in configs] == [1, 2, 3]
    assert [config.train.epochs for config in configs] == [30, 9, 30]
    assert {config.network.kind for config in configs} == {"dense"}


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n---\n")
    assert read_configs([path]) == [Config()]


OUT_OF_RANGE = """
name            a/b ..
seed            -1
data.augment    stronger
data.cutmix     true
data.cutout     0
data.limit      1
data.mix_ramp   1.5
data.mixup      -0.1
data.size       4
data.sizes      [[1,4],[9,8]] 16
data.valid_fraction 1
network.cells   vgg19
network.exits_at [0,0.5] [0.5,1] 0.5 [true] [.nan]
network.kind    densse
network.structure [0,2] [] [0,true]
prune.control   none_
prune.fraction  0
prune.interval  0
prune.keep_ratio 0
prune.rounds    0
prune.until     1.5
train.device    tpu
train.distill   -1
train.distill_temperature 0
train.ema       0 1
train.epochs    -1 true 2.5
train.exit_gradients mean
train.final_rate 2
train.label_smoothing 1
train.learning_rate -0.1 fast .nan .inf
train.optimizer lion
train.schedule  cos
train.teacher_weight 2
train.trunk_first -1
train.warmup    -1
"""


@pytest.mark.parametrize("line", OUT_OF_RANGE.strip().splitlines())
def test_a_value_out_of_range_is_shown_with_what_its_key_accepts(line: str) -> None:
    key, *values = line.split()
    for value in values:
        [problem] = problems(f"{key}={value}")
        shown = to_text(yaml.load(value, Loader=Loader))
        assert problem == f"{key}: got {shown}; accepted: {accepted(key)} (command line)"


RIGL = "prune.enabled=true prune.policy=rigl"

CONTRADICTIONS = [
    ("train.epochs=0", "train.epochs: got 0; accepted: at least 4,"),
    ("train.epochs=3", "train.epochs: got 3; accepted: at least 4,"),
    ("growth.epochs=[5,4,6]", "growth.epochs: got [5, 4, 6]; accepted: epochs in rising order"),
    ("growth.epochs=[5,5,6]", "growth.epochs: got [5, 5, 6]; accepted: epochs in rising order"),
    ("growth.epochs=[5,10,31]", "growth.epochs: got [5, 10, 31]; accepted: epochs from 2 to train.epochs = 30"),
    ("growth.epochs=[1,10,20]", "growth.epochs: got [1, 10, 20]; accepted: epochs from 2 to train.epochs = 30"),
    ("growth.epochs=[5]", "growth.epochs: got [5]; accepted: a list of 3,"),
    ("growth.epochs=[5,6,7,8]", "growth.epochs: got [5, 6, 7, 8]; accepted: a list of 3,"),
    ("network.kind=full growth.epochs=[3,6,9]", "growth.epochs: got [3, 6, 9]; accepted: a list of none,"),
    ("network.kind=full_ic growth.epochs=[3,6,9]", "growth.epochs: got [3, 6, 9]; accepted: a list of none,"),
    ("train.gammas=[0.1,0.1]", "train.gammas: got [0.1, 0.1]; accepted: one number,"),
    ("train.milestones=[10,20] train.gammas=[0.1]", "train.gammas: got [0.1]; accepted: a list of 2,"),
    ("train.tau_max=[1]", "train.tau_max: got [1.0]; accepted: a list of 3,"),
    ("train.milestones=[30,20]", "train.milestones: got [30, 20]; accepted: epochs in rising order"),
    ("train.milestones=[99]", "train.milestones: got [99]; accepted: epochs up to train.epochs = 30"),
    ("prune.keep_ratio=[0.5,0.5]", "prune.keep_ratio: got [0.5, 0.5]; accepted: one number, or a list of 4,"),
    ("prune.epochs=[9,3]", "prune.epochs: got [9, 3]; accepted: epochs in rising order"),
    ("train.trunk_first=19", "train.trunk_first: got 19; accepted: 0 to 18,"),
    ("network.kind=full_ic train.trunk_first=30", "train.trunk_first: got 30; accepted: 0 to 29,"),
    ("growth.mode=loss growth.until=0.5 train.trunk_first=16", "train.trunk_first: got 16; accepted: 0 to 15,"),
    ("train.teacher_weight=0.5", "train.teacher_weight: got 0.5; accepted: null,"),
    ("network.exits_at=[0.5,0.2]", "network.exits_at: got [0.5, 0.2]; accepted: numbers in rising order"),
    ("network.exits_at=[0.5,0.5]", "network.exits_at: got [0.5, 0.5]; accepted: numbers in rising order"),
    (
        "network.exits_at=[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8]",
        "network.exits_at: got [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]; accepted: at most 6,",
    ),
    ("train.warmup=30", "train.warmup: got 30.0; accepted: less than train.epochs = 30"),
    ("train.final_rate=0.1", "train.final_rate: got 0.1; accepted: 0,"),
    ("train.schedule=cosine train.milestones=[10]", "train.milestones: got [10]; accepted: null,"),
    ("train.flip_test=true", "train.flip_test: got true; accepted: false, as a mirrored picture of digits"),
    ("train.flip_test=true data.source=mnist", "train.flip_test: got true; accepted: false,"),
    ("train.nesterov=true train.optimizer=adam", "train.nesterov: got true; accepted: false,"),
    ("train.nesterov=true train.optimizer=muon", "train.nesterov: got true; accepted: false,"),
    ("train.nesterov=true train.momentum=0", "train.nesterov: got true; accepted: false, as train.momentum"),
    ("data.flip=alternating", "data.flip: got 'alternating'; accepted: random, as data.augment=auto"),
    ("data.augment=none data.shift=2", "data.shift: got 2; accepted: null, as data.augment=none"),
    ("data.source=mine data.augment=photo data.border=edge", "data.border: got 'edge'; accepted: zeros,"),
    ("data.sizes=[]", "data.sizes: got []; accepted: a first entry for epoch 1, or null"),
    ("data.sizes=[[2,16],[9,32]]", "data.sizes: got [[2, 16], [9, 32]]; accepted: a first entry for epoch 1, or null"),
    ("data.sizes=[[1,16],[1,32]]", "data.sizes: got [[1, 16], [1, 32]]; accepted: epochs in rising order"),
    ("data.sizes=[[1,16],[99,32]]", "data.sizes: got [[1, 16], [99, 32]]; accepted: epochs up to train.epochs = 30"),
    ("data.sizes=[[1,32],[9,16]]", "data.sizes: got [[1, 32], [9, 16]]; accepted: sides in rising order"),
    ("network.cells=resnet56 network.stem=whitened", "network.stem: got 'whitened'; accepted: block,"),
    ("network.cells=vgg16 network.kind=dense", "network.kind: got 'dense'; accepted: iterative, full_ic, full,"),
    ("network.cells=vgg16 network.cell=skip_second", "network.cell: got 'skip_second'; accepted: basic,"),
    ("network.cells=vgg16 network.channels=32", "network.channels: got 32; accepted: 16,"),
    ("network.cells=vgg16 growth.epochs=[3]", "growth.epochs: got [3]; accepted: a list of 6,"),
    ("network.cells=vgg16 train.tau_max=[1]", "train.tau_max: got [1.0]; accepted: a list of 6,"),
    ("network.cells=lenet5 network.structure=[0,0,1,0]", "network.structure: got [0, 0, 1, 0]; accepted: up to 3"),
    ("network.kind=full train.exit_gradients=equilibrium", "train.exit_gradients: got 'equilibrium'; accepted: sum,"),
    ("network.kind=full train.distill=0.5", "train.distill: got 0.5; accepted: 0,"),
    ("network.kind=full train.trunk_first=2", "train.trunk_first: got 2; accepted: 0,"),
    (
        "parent=runs/a network.kind=full_ic train.exits_only=true train.exit_gradients=equilibrium",
        "train.exit_gradients: got 'equilibrium'; accepted: sum, as train.exits_only",
    ),
    (
        "parent=runs/a network.kind=full_ic train.exits_only=true train.trunk_first=1",
        "train.trunk_first: got 1; accepted: 0, as train.exits_only",
    ),
    (f"{RIGL} prune.criterion=snip", "prune.criterion: got 'snip'; accepted: erk, uniform,"),
    (f"{RIGL} prune.unit=channel", "prune.unit: got 'channel'; accepted: weight,"),
    (f"{RIGL} prune.rounds=5", "prune.rounds: got 5; accepted: 1,"),
    (f"{RIGL} prune.control=shuffle", "prune.control: got 'shuffle'; accepted: none,"),
    (f"{RIGL} prune.reinit=true", "prune.reinit: got true; accepted: false,"),
    (f"{RIGL} prune.epochs=[1,5]", "prune.epochs: got [1, 5]; accepted: one epoch,"),
    (f"{RIGL} prune.epochs=[25]", "prune.until: got 0.75; accepted: more than 0.8,"),
    (f"{RIGL} prune.epochs=[9] growth.freeze=before", "prune.epochs: got [9]; accepted: none,"),
    (
        f"{RIGL} parent=runs/a train.exits_only=true growth.epochs=null",
        "prune.policy: got 'rigl'; accepted: skip_layer, normal, gradual, iterative,",
    ),
]


@pytest.mark.parametrize(("overrides", "sentence"), CONTRADICTIONS)
def test_a_contradiction_is_one_sentence(overrides: str, sentence: str) -> None:
    [problem] = problems(*overrides.split())
    assert problem.startswith(sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train.epoch=3", "unknown key train.epoch; nearest known key: train.epochs"),
        ("netwrok.kind=full", "unknown key netwrok.kind; nearest known key: network.kind"),
        ("epochs=3", "unknown key epochs; nearest known key: "),
        ("train.lr=3", "unknown key train.lr; nearest known key: train.learning_rate"),
        ("train=5", "train: got 5; accepted: a section with keys such as train.epochs"),
        ("train.epochs=[", "train.epochs: got '[', which is not YAML; accepted: a whole number >= 1"),
    ],
)
def test_what_is_no_key_or_value_is_one_sentence(text: str, sentence: str) -> None:
    [problem] = problems(text)
    assert problem.startswith(sentence)
    assert problem.endswith("(command line)")


def test_a_missing_file_is_one_sentence() -> None:
    [problem] = problems(files=(Path("train.epochs"),))
    assert problem.startswith("train.epochs: got a file that does not exist")


def test_the_trunk_may_train_first_up_to_the_last_epoch_but_one() -> None:
    assert read_config(overrides=["network.kind=full_ic", "train.trunk_first=29"]).train.trunk_first == 29
    by_loss = ("growth.mode=loss", "growth.until=0.5")
    assert read_config(overrides=[*by_loss, "train.trunk_first=15"]).train.trunk_first == 15


@pytest.mark.parametrize("epochs", [4, 5, 15, 60])
def test_in_other_epochs_the_trunk_is_first_for_the_same_share(epochs: int) -> None:
    config = read_config(overrides=["growth.epochs=[4,8,12]", "train.trunk_first=8"])
    scaled = rescale(config, epochs)
    assert scaled.train.trunk_first == min(round(8 * epochs / 30), epochs - max(scaled.growth.epochs or ()))
    assert Config.model_validate(scaled.model_dump()) == scaled


def test_a_teacher_has_half_of_the_say_unless_told_otherwise() -> None:
    assert resolve(read_config(overrides=["train.teacher=runs/a"])).train.teacher_weight == 0.5
    assert resolve(read_config(overrides=["train.teacher=runs/a", "train.teacher_weight=0"])).train.teacher_weight == 0
    assert resolve(Config()).train.teacher_weight is None


def test_the_criterion_follows_the_policy() -> None:
    found = {policy: resolve(read_config([], [f"prune.policy={policy}"])).prune for policy in ("iterative", "set")}
    assert [found[policy].criterion for policy in ("iterative", "set")] == ["snip", "erk"]
    assert resolve(read_config([], RIGL.split())).prune.epochs == (1,)


@pytest.mark.parametrize("name", ["1e3", "-2.E4", "1.5", "true", "null", "a: b"])
def test_a_text_that_looks_like_something_else_stays_a_text(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(Config(runs_dir=name)))
    assert read_config([tmp_path / "config.yaml"]).runs_dir == name


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_published_architecture_needs_no_more_than_its_name(name: str, tmp_path: Path) -> None:
    config = read_config(overrides=[f"network.cells={name}"])
    network = config.network
    assert network.structure == PUBLISHED[name]
    assert network.exits == (sum(PUBLISHED[name]) or len(EXITS_AT)) + 1
    assert len(resolve(config).growth.epochs or ()) == network.exits - 1
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert read_config([path]) == config
    assert NetworkConfig.model_validate({"cells": name}) == network


def test_the_exits_of_a_published_architecture_stand_where_they_are_wanted() -> None:
    given = "network.structure=[0,0,0,1,0,0,0,0,0,0,0,0]"
    placed = read_config(overrides=["network.cells=vgg16", given]).network
    assert (sum(placed.structure), placed.exits_at, placed.exits) == (1, None, 2)
    asked = read_config(overrides=["network.cells=vgg16", "network.exits_at=[0.5]"]).network
    assert (asked.structure, asked.exits_at, asked.exits) == ((0,) * 12, (0.5,), 2)
    for kind, exits in (("full", 1), ("full_ic", 7), ("iterative", 7)):
        network = read_config(overrides=["network.cells=resnet56", f"network.kind={kind}"]).network
        assert (network.exits, network.first_stages) == (exits, 1 if kind == "iterative" else exits)
    short = read_config(overrides=["network.cells=vgg16", "network.structure=[0,1,0]"]).network
    assert (short.structure, short.exits) == ((0, 1, 0), 2)
    seed = read_config(overrides=["network.exits_at=[0.3,0.6]"]).network
    assert (seed.structure, seed.exits) == ((0, 1, 0, 1, 0, 1, 0), 3)


def test_a_file_and_the_command_line_agree_on_an_architecture(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("network:\n  cells: lenet5\n")
    assert read_config([path]).network.structure == (1, 1, 0)
    assert read_config([path], ["network.cells=lenet300"]).network.structure == (1, 0)
    assert read_config([path], ["network.cells=seed"]) == Config()
    [problem] = problems("network.kind=dense", files=(path,))
    assert problem.startswith("network.kind: got 'dense'; accepted: iterative, full_ic, full, as the cells of lenet5")


def test_everything_that_contradicts_an_architecture_is_told_at_once() -> None:
    found = problems("network.cells=lenet5", "network.kind=dense", "network.channels=8", "network.structure=[0,0,1,0]")
    assert [problem.partition(":")[0] for problem in found] == ["network.structure", "network.kind", "network.channels"]


def test_a_schedule_from_step_to_step_has_no_milestones() -> None:
    for schedule in ("cosine", "linear"):
        config = resolve(read_config(overrides=[f"train.schedule={schedule}"]))
        assert (config.train.milestones, config.train.gammas) == ((), ())
        assert resolve(config) == config


def test_everything_wrong_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("seed: -1\ntrain:\n  epochs: none\n  lr: 3\n")
    found = problems("data.limit=1", files=(path,))
    assert len(found) == 4
    assert any(problem.startswith("seed: got -1") and problem.endswith(f"({path}:1)") for problem in found)
    assert any(problem.startswith("train.epochs: got 'none'") and problem.endswith(f"({path}:3)") for problem in found)
    assert any(problem.startswith("unknown key train.lr") and problem.endswith(f"({path}:4)") for problem in found)
    assert any(problem.startswith("data.limit: got 1") and problem.endswith("(command line)") for problem in found)


def test_a_key_given_twice_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 1\nseed: 2\n")
    assert problems(files=(path,)) == [f"{path}:2: seed is given twice; accepted: once"]


@pytest.mark.parametrize("text", ["a: [1", "just words", "- 1\n- 2", "\x00"])
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    [problem] = problems(files=(path,))
    assert problem.startswith(str(path))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00\x9f")
    [problem] = problems(files=(path,))
    assert problem.startswith(f"{path}: ")


def test_contradictions_are_found_from_python_too() -> None:
    with pytest.raises(ConfigError, match=r"train\.epochs: got 2; accepted: at least 4"):
        Config(train=TrainConfig(epochs=2))


structures = st.lists(st.integers(0, 1), min_size=1, max_size=8).map(tuple)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    network = NetworkConfig(
        kind=draw(st.sampled_from(["dense", "iterative", "full_ic", "full"])),
        structure=draw(structures),
        channels=draw(st.integers(1, 64)),
        cell=draw(st.sampled_from(["basic", "skip_second"])),
    )
    train = TrainConfig(
        epochs=draw(st.integers(9, 300)),
        learning_rate=draw(st.floats(1e-6, 10)),
        momentum=draw(st.floats(0, 0.99)),
        gammas=draw(st.floats(1e-3, 2)),
    )
    name = draw(st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True))
    return Config(name=name, seed=draw(st.integers(0, 2**32 - 1)), network=network, train=train)


@given(configs())
def test_what_is_written_reads_back_equal(config: Config) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for version in (config, resolve(config)):
            path = Path(folder) / "config.yaml"
            path.write_text(to_yaml(version))
            assert read_config([path]).model_dump() == version.model_dump()


@given(configs())
def test_resolving_twice_changes_nothing(config: Config) -> None:
    once = resolve(config)
    assert resolve(once) == once
    assert once.growth.epochs is not None
    assert len(once.growth.epochs) == once.network.growths


@given(growths=st.integers(0, 12), epochs=st.integers(1, 400))
def test_growth_is_spread_in_rising_order_from_the_second_epoch(growths: int, epochs: int) -> None:
    epochs = max(epochs, growths + 1)
    found = spread_epochs(growths, epochs)
    assert len(found) == growths
    assert all(2 <= epoch <= epochs for epoch in found)
    assert all(a < b for a, b in itertools.pairwise(found))


@given(st.dictionaries(st.text(min_size=1, max_size=12), st.text(max_size=12), max_size=4))
def test_whatever_is_typed_is_accepted_or_refused_in_words(entries: dict[str, str]) -> None:
    try:
        read_configs(overrides=[f"{key}={value}" for key, value in entries.items()])
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - either outcome is right; another error is not


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (None, "null"), (1, "1"), ("a", "'a'"), ((1, 2), "[1, 2]"), (0.5, "0.5")]
)
def test_values_are_shown_as_yaml(value: object, text: str) -> None:
    assert to_text(value) == text
