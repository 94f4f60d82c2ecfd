"""Runs of a module of the user's: trained, gone on with, and read back without its code."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import ramify
from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.errors import ConfigError, InputError
from ramify.run.derive import child_config, converted_config
from ramify.run.events import EpochDone, Event
from ramify.run.folder import default_name
from ramify.training.run import resume, train

CODE = """
from pathlib import Path
from torch import nn

Path("imported").write_text(Path("imported").read_text() + "x" if Path("imported").exists() else "x")


class Block(nn.Module):
    def __init__(self, channels, out):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.norm2 = nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)
        self.shortcut = nn.Conv2d(channels, out, 1)
        self.relu = nn.ReLU()

    def forward(self, x):
        y = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Own(nn.Module):
    mean, std = [0.3], [0.35]

    def __init__(self, width=6, classes=1000):
        super().__init__()
        self.blocks = nn.Sequential(Block(1, width), Block(width, width), Block(width, 2 * width))
        self.drop, self.fc = nn.Dropout(0.2), nn.Linear(2 * width, classes)

    def forward(self, x):
        return self.fc(self.drop(self.blocks(x).mean((2, 3))))
"""
RUN = ["network.module=a_net_of_mine:Own", "network.exits_at=[blocks.0,blocks.1]", "data.limit=120", "train.epochs=3"]
RUN += ["train.optimizer=adamw", "train.learning_rate=0.01", "train.backbone_rate=0.5", "train.freeze_epochs=1"]
RUN += ["train.ema=0.9", "train.device=cpu", "name=mine", "data.augment=photo"]


@pytest.fixture
def code(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of the module in the folder of the process; ``imported`` has a letter for each time it was imported."""
    Path("a_net_of_mine.py").write_text(CODE)
    yield Path("imported")
    sys.modules.pop("a_net_of_mine", None)


def configured(*overrides: str) -> Config:
    return read_config(overrides=[*RUN, *overrides])


def forget() -> None:
    """Make the next import of the module leave a trace."""
    sys.modules.pop("a_net_of_mine", None)


class Stopped(BaseException):
    pass


def stop_after(epoch: int) -> "list[object]":
    def observe(event: Event) -> None:
        if isinstance(event, EpochDone) and event.epoch == epoch:
            raise Stopped

    return [observe]


def test_the_trunk_stands_still_and_learns_at_its_rate_afterwards(code: Path) -> None:
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def keep(event: Event) -> None:
        if isinstance(event, EpochDone):
            seen[event.epoch - 1] = {
                name: value.clone() for name, value in ramify.load("runs/mine/last").state_dict().items()
            }

    summary = train(configured("train.ema=null"), [keep])  # an epoch is told before it is kept
    assert summary.exits[-1].cells == 0
    before, after = seen[1], ramify.load("runs/mine/last").state_dict()
    trunk = [name for name in before if "blocks" in name and name.endswith(("weight", "running_mean"))]
    assert trunk
    moved = [name for name in trunk if not torch.equal(before[name], after[name])]
    assert moved == trunk  # from the second epoch on
    first = ramify.load("runs/mine/last")
    assert torch.allclose(first.mean, torch.tensor([0.3]))  # the module's own normalization
    assert torch.allclose(first.std, torch.tensor([0.35]))


def test_frozen_epochs_leave_the_trunk_bit_for_bit(code: Path) -> None:
    from ramify.nn.backbone import attach_backbone, trunk_of
    from ramify.run.distributed import ALONE
    from ramify.training.prepare import prepare_run

    train(configured("train.freeze_epochs=3", "train.ema=null"))
    learned = ramify.load("runs/mine/last")
    config, _, _ = prepare_run(configured(), ALONE)
    forget()
    fresh, _ = attach_backbone(config.network, config.seed)
    changed = {
        name
        for name, value in learned.state_dict().items()
        if name in dict(learned.named_parameters()) and value.shape != fresh.state_dict()[name].shape
    }
    assert changed == set()
    statistics = [value for name, value in learned.state_dict().items() if name.endswith("running_mean")]
    assert statistics
    assert all(not value.any() for value in statistics if value.shape[0] == 6)  # of the trunk: as they were made
    heads = {name for name, _ in learned.named_parameters()} - trunk_of(learned)
    assert any(name.endswith("fc.weight") for name in heads)
    assert any(".exit." in name for name in heads)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_resumed_run_ends_with_the_same_bits_and_imports_nothing(code: Path, epoch: int) -> None:
    with pytest.raises(Stopped):
        train(configured(), stop_after(epoch))  # type: ignore[arg-type]
    forget()
    Path("a_net_of_mine.py").unlink()
    resume(Path("runs/mine"))
    ended = ramify.load("mine").state_dict()
    Path("a_net_of_mine.py").write_text(CODE)
    train(configured("name=whole"))
    whole = ramify.load("whole").state_dict()
    assert ended.keys() == whole.keys()
    assert all(torch.equal(value, whole[name]) for name, value in ended.items())


def test_everything_is_read_back_without_the_code(code: Path) -> None:
    train(configured())
    trace = code.read_text()
    forget()
    run = ramify.open("mine")
    images = torch.rand(4, 1, 8, 8)
    assert run.network(images).shape == (3, 4, 10)
    assert len(run.evaluate().exits) == 3
    run.calibrate(max_drop=0.2)
    assert run.predict(images).classes.shape == (4,)
    kept = ramify.save(run.network, "kept")
    assert torch.equal(ramify.load(kept)(images), run.network(images))
    assert code.read_text() == trace


def test_runs_are_made_of_it_without_the_code(code: Path) -> None:
    whole = train(configured())
    trace = code.read_text()
    forget()
    parent = Path("runs/mine")
    images = torch.rand(4, 1, 8, 8)
    pruned = train(child_config(parent, ["train.epochs=1", "prune.unit=channel", "prune.keep_ratio=0.5"], compact=True))
    assert pruned.exits[-1].macs < whole.exits[-1].macs
    assert pruned.receipt is not None
    assert pruned.receipt.difference < 1e-4
    shorter = train(converted_config(parent, 2))
    assert len(shorter.exits) == 2
    assert torch.equal(ramify.load("mine-cut2")(images), ramify.load("mine")(images)[:2])
    bare = train(converted_config(parent, "cnn"))
    assert len(bare.exits) == 1
    assert torch.allclose(ramify.load("mine-cnn")(images), ramify.load("mine")(images)[-1:], atol=1e-6)
    assert ramify.open("mine").report().exists()
    assert code.read_text() == trace


def test_code_of_a_folder_is_imported_only_if_it_is_trusted(code: Path) -> None:
    def stop(event: Event) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        train(configured(), [stop])
    trace = code.read_text()
    forget()
    with pytest.raises(InputError, match=r"network\.module=a_net_of_mine:Own.*--trust") as error:
        resume(Path("runs/mine"))
    assert len(error.value.problems) == 1
    assert code.read_text() == trace
    assert resume(Path("runs/mine"), trust=True).finished
    assert code.read_text() == trace + "x"


def test_a_module_that_cannot_be_kept_is_refused_before_it_trains(code: Path) -> None:
    Path("a_net_of_mine.py").write_text(CODE.replace("mean((2, 3))", "mean((2, 3)).lgamma()"))
    seen: list[Event] = []
    with pytest.raises(InputError, match="the method lgamma of a tensor"):
        train(configured(), [seen.append])
    assert not seen


def test_a_module_may_have_its_own_output_alone_but_not_be_wholly_frozen(code: Path) -> None:
    Path("a_net_of_mine.py").write_text(CODE + "\n\ndef frozen():\n    return Own(classes=10).requires_grad_(False)\n")
    keys = ["network.kind=full", "data.limit=120", "train.epochs=1"]
    assert len(train(read_config(overrides=[*keys, "network.module=a_net_of_mine:Own"])).exits) == 1
    keys.append("network.module=a_net_of_mine:frozen")
    with pytest.raises(InputError, match="whose parameters are all frozen"):
        train(read_config(overrides=keys))


def test_what_the_module_froze_stays_bit_for_bit(code: Path) -> None:
    frozen = "self.blocks[0].requires_grad_(False)\n        self.drop, self.fc"
    Path("a_net_of_mine.py").write_text(CODE.replace("self.drop, self.fc", frozen))
    train(configured("train.freeze_epochs=0", "train.ema=null", "train.epochs=1"))
    first = ramify.load("runs/mine/last").state_dict()
    with pytest.raises(Stopped):
        train(configured("train.freeze_epochs=0", "train.ema=null", "name=two"), stop_after(2))  # type: ignore[arg-type]
    resume(Path("runs/two"))
    last = ramify.load("runs/two/last").state_dict()
    own = [name for name in first if "blocks.0." in name and "exit" not in name]
    assert own
    assert all(torch.equal(first[name], last[name]) for name in own)
    assert not torch.equal(first["stages.2.body.net.fc.weight"], last["stages.2.body.net.fc.weight"])


def test_a_run_is_called_by_its_module() -> None:
    assert default_name(read_config(overrides=["network.module=nets.lite0:make"])) == "digits-lite0"
    assert default_name(read_config(overrides=["network.backbone=timm/resnet18"])) == "digits-resnet18"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("network.exits_at=[blocks.7]", "network.exits_at: got 'blocks.7'"),
        ("network.normalization=imagenet", "network.normalization"),
        ("network.module_args={depth: 3}", "depth"),
        ("data.sizes=[[1,8]]", "data.sizes"),
    ],
)
def test_what_does_not_fit_is_told_by_its_key(code: Path, override: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        train(configured(override))
    assert words in str(error.value)
