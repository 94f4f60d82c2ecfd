"""Runs with the parts of a recipe on: growth, widening and pruning go through, and a stopped run ends bitwise equal."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ramify.config.read import read_config
from ramify.data.pictures import Part
from ramify.data.sources import load_pictures
from ramify.errors import ConfigError
from ramify.nn.branching import Branching
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.ops.surgery import revived
from ramify.run.checkpoint import read_model
from ramify.run.derive import child_config, converted_config, fit_to
from ramify.run.evaluate import evaluate, evaluation_logits
from ramify.run.events import EpochDone, Event, Grew, Pruned, StepDone
from ramify.run.folder import read_lines
from ramify.run.pictures import split_parts
from ramify.run.readback import describe
from ramify.show.terminal.tables import sentence
from ramify.training.run import train
from tests.conftest import tiny, trained
from tests.data.making import picture, write_tree
from tests.training.test_resume import outcome, stop_at_each

EVERYTHING = (
    "data.size=16",
    "data.epoch_pictures=80",
    "data.augment=strong",
    "data.cutout=4",
    "data.mixup=0.3",
    "data.cutmix=1",
    "data.mix_ramp=0.5",
    "data.sizes=[[1,8],[3,16]]",
    "growth.plan=[deeper,wider,deeper]",
    "growth.epochs=[2,3,4]",
    "growth.init=identity",
    "prune.enabled=true",
    "prune.criterion=magnitude",
    "prune.policy=iterative",
    "prune.keep_ratio=0.7",
    "prune.epochs=[3,5]",
    "train.epochs=5",
    "train.optimizer=muon",
    "train.learning_rate=0.01",
    "train.schedule=cosine",
    "train.warmup=1",
    "train.final_rate=0.05",
    "train.label_smoothing=0.1",
    "train.ema=0.9",
)


def parts_of(folder: Path) -> tuple[Branching, dict[str, torch.Tensor]]:
    """The network that answers, and the tensors of the one that is trained."""
    tensors = load_file(folder / "last" / "trainer.safetensors")
    return read_model(folder / "last")[0], {name: value for name, value in tensors.items() if ":" not in name}


def test_everything_at_once_through_growth_widening_and_pruning() -> None:
    folder = trained(*EVERYTHING, "name=whole")
    kinds = [line["event"] for line in read_lines(folder / "events.jsonl") if line["event"] != "best"]
    assert kinds == ["grew", "widened", "pruned", "grew", "pruned", "finished"]
    averaged, live = parts_of(folder)
    assert averaged.complete
    assert averaged.state_dict().keys() == live.keys()
    assert revived(averaged) == 0
    for name, layer in masked_layers(averaged).items():
        assert torch.equal(layer.mask, live[f"{name}.mask"])
    # Every stage was followed, the late ones too, and none is what it was born as or what is trained.
    for stage in range(3):
        name = f"stages.{stage}.exit.linear.weight"
        difference = float((averaged.get_parameter(name).detach() - live[name]).norm() / live[name].norm())
        assert 0 < difference < 0.5
    rates = [float(str(line["learning_rate"])) for line in read_lines(folder / "metrics.jsonl")]
    assert rates[0] == max(rates)  # the warm-up is over after the first epoch
    assert rates[-1] == pytest.approx(0.01 * 0.05, rel=0.2)


MOMENTS: dict[str, Callable[[Event], bool]] = {
    "right after a growth": lambda event: isinstance(event, Grew) and event.epoch == 2,
    "after a widening and a pruning": lambda event: (
        isinstance(event, StepDone) and (event.epoch, event.done) == (3, 64)
    ),
    "between two": lambda event: isinstance(event, EpochDone) and event.epoch == 4,
    "right after the last pruning": lambda event: isinstance(event, Pruned) and event.epoch == 5,
}


def test_everything_stopped_at_every_moment_ends_bitwise_equal() -> None:
    stop_at_each(MOMENTS.values(), *EVERYTHING)
    assert outcome(Path("runs/stopped")) == outcome(trained(*EVERYTHING, "name=whole"))


def test_what_is_validated_kept_and_tested_is_the_average() -> None:
    config = tiny("train.ema=0.95")
    summary = train(config)
    folder = Path(summary.folder)
    parts = split_parts(fit_to(config, load_pictures(config.data)), load_pictures(config.data))
    best, card = read_model(folder / "best")
    assert tuple(evaluate(best, parts.valid)) == card.valid
    assert tuple(evaluate(best, parts.test)) == tuple(each.test for each in summary.exits)
    averaged, live = parts_of(folder)
    assert tuple(evaluate(averaged, parts.valid)) == read_model(folder / "last")[1].valid
    assert not torch.equal(averaged.get_parameter("stem.conv.weight"), live["stem.conv.weight"])


def test_without_an_average_nothing_more_is_kept() -> None:
    folder = trained("name=a")
    assert all(":" in name for name in load_file(folder / "last" / "trainer.safetensors"))


def test_training_itself_does_not_know_of_its_average() -> None:
    plain = trained("name=a")
    averaged = Path(train(tiny("name=averaged", "train.ema=0.9")).folder)
    alone = read_model(plain / "last")[0].state_dict()
    live = parts_of(averaged)[1]
    assert all(torch.equal(live[name], value) for name, value in alone.items())


def test_a_stage_drawn_anew_is_followed_anew() -> None:
    overrides = ("prune.enabled=true", "prune.epochs=[4]", "prune.reinit=true", "train.learning_rate=1e-9")
    averaged, live = parts_of(Path(train(tiny(*overrides, "train.ema=0.999")).folder))
    torch.testing.assert_close(
        averaged.get_parameter("stem.conv.weight").detach(), live["stem.conv.weight"], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ("train.nesterov=true",),
        ("train.schedule=linear", "train.warmup=0.5"),
        ("train.optimizer=muon", "train.learning_rate=0.01"),
        ("data.mixup=1",),
    ],
    ids=lambda given: given[0],
)
def test_each_part_alone_trains_another_network(overrides: Sequence[str]) -> None:
    plain, other = trained("name=a"), Path(train(tiny("name=b", *overrides)).folder)
    assert (plain / "last/model.safetensors").read_bytes() != (other / "last/model.safetensors").read_bytes()


def photos(side: int = 16) -> Path:
    """A folder of photographs of two classes: dark and bright."""
    names = [(f"{part}/{kind}", shade) for part in ("train", "test") for kind, shade in (("dark", 20), ("bright", 180))]
    files = {f"{name}/{i}.png": picture(shade + 2 * i, (side, side)) for name, shade in names for i in range(20)}
    return write_tree(Path("photos"), files)


def colour(*overrides: str) -> list[str]:
    fixed = ["network.structure=[1,0]", "network.channels=4", "train.epochs=2", "growth.epochs=[2]", "train.device=cpu"]
    return [f"data.source={photos()}", "data.batch_size=8", *fixed, *overrides]


def test_the_mirror_is_asked_and_it_is_said() -> None:
    config = read_config(overrides=colour("train.flip_test=true"))
    summary = train(config)
    assert summary.flip_test
    assert sentence(summary).endswith("each answered with its mirror (twice the MACs)")
    assert describe(Path(summary.folder)) == summary
    parts = split_parts(config, load_pictures(config.data))
    network, card = read_model(Path(summary.folder) / "best")
    assert tuple(evaluate(network, parts.valid, flip=True)) == card.valid
    assert tuple(evaluate(network, parts.test, flip=True)) == tuple(each.test for each in summary.exits)


def test_logits_with_the_mirror_do_not_see_a_mirrored_picture() -> None:
    config = read_config(overrides=["network.input_shape=[3,16,16]", "network.classes=3", "network.structure=[1,0]"])
    network = Network(config, stages=2, seed=0).eval()
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(evaluation_logits(network, images, True), evaluation_logits(network, images.flip(-1), True))
        assert not torch.allclose(
            evaluation_logits(network, images, False), evaluation_logits(network, images.flip(-1), False)
        )
        expected = (network(images) + network(images.flip(-1))) / 2
        assert torch.equal(evaluation_logits(network, images, True), expected)
    part = Part((images * 255).to(torch.uint8), torch.tensor([0, 1, 2, 0, 1]))
    mirrored = Part(part.images.flip(-1), part.labels)
    assert evaluate(network, part, flip=True) == evaluate(network, mirrored, flip=True)


@pytest.mark.parametrize("cells", ["seed", "resnet56", "mobilenet", "lenet5"])
def test_networks_learn_from_small_pictures_what_they_know_of_large_ones(cells: str) -> None:
    chosen = [f"network.cells={cells}", "network.input_shape=[3,32,32]", "network.classes=3", "network.kind=full_ic"]
    network = Network(read_config(overrides=[*chosen, "network.structure=[1,0]"]), seed=0)
    for side in (16, 24, 32):
        assert network(torch.rand(2, 3, side, side)).shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data.sizes=[[1,8],[2,12]]",), r"data\.sizes: got \[\[1, 8\], \[2, 12\]\]; accepted: 16 in the end"),
        (("data.cutout=16",), r"data\.cutout: got 16; accepted: less than 16, the side of the pictures"),
        (
            ("data.sizes=[[1,8],[2,16]]", "network.cells=lenet5", "network.structure=[1,0]"),
            r"data\.sizes: got \[\[1, 8\], \[2, 16\]\]; accepted: sides of 16 or more for network\.cells=lenet5",
        ),
        (
            ("data.sizes=[[1,8],[2,16]]", "network.cells=lenet300"),
            r"data\.sizes: got \[\[1, 8\], \[2, 16\]\]; accepted: null, as the linear cells of lenet300 read",
        ),
    ],
)
def test_what_does_not_suit_the_pictures_is_told(overrides: Sequence[str], message: str) -> None:
    given = [text for text in colour(*overrides) if "lenet" not in str(overrides) or "channels" not in text]
    with pytest.raises(ConfigError, match=message):
        train(read_config(overrides=given))
    assert not Path("runs").exists()


def test_a_run_with_a_parent_takes_over_what_suits_its_epochs() -> None:
    recipe = ("train.schedule=cosine", "train.warmup=2", "train.ema=0.9", "data.size=16", "data.sizes=[[1,8],[3,16]]")
    parent = Path(train(tiny(*recipe, "train.nesterov=true")).folder)
    child = child_config(parent, ["train.epochs=2", "prune.keep_ratio=0.5"])
    assert (child.train.schedule, child.train.warmup, child.train.ema, child.data.sizes) == ("cosine", 0, 0.9, None)
    folder = Path(train(child).folder)
    averaged, live = parts_of(folder)
    assert revived(averaged) == 0
    assert torch.equal(masked_layers(averaged)["stem.conv"].mask, live["stem.conv.mask"])
    sdn = converted_config(parent, "sdn", ["network.structure=[1,1,0]"])
    assert (sdn.train.schedule, sdn.train.optimizer, sdn.train.nesterov) == ("steps", "adam", False)
