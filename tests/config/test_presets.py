"""Every preset of the repository says what it is, fits the budget that its name tells, and trains."""

import json
import re
from pathlib import Path

import pytest

from ramify.config.presets import presets, purpose
from ramify.config.read import read_config
from ramify.config.rescaling import fewest_epochs, rescale
from ramify.config.rules import Config, resolve
from ramify.nn.network import Network
from ramify.ops.cost import cost
from ramify.run.folder import read_lines
from ramify.training.run import train
from tests.data.making import encoded, write_tree

HOUSE = Path(__file__).parents[2]
PRESETS = list(presets().values())
BUDGETS = {"cpu-cifar": 50_817, "seed-2020": 50_817, "gnap-158k": 158_000, "mlperf-tiny": 78_000}
BUDGETS |= {f"cpu-{minutes}min": 100_000 for minutes in (2, 10, 60)}
PUBLISHED = {"seed-2020", "seed-full-ic", "seed-iterative", "seed-iterative-fixed"}


def budget(preset: Path) -> int | None:
    """Weights that a preset may keep, by its name."""
    found = re.search(r"-(\d+)k$", preset.stem)
    return BUDGETS.get(preset.stem) or (1000 * int(found[1]) if found else None)


def grown(config: Config) -> Network:
    network = config.network.model_copy(update={"input_shape": (3, 32, 32), "classes": 10})
    return Network(network, stages=network.exits)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 colour pictures of noise in 10 classes."""
    import numpy as np
    from PIL import Image

    draws = np.random.default_rng(0)
    names = [
        f"{part}/{label}/{i}.png"
        for part, count in (("train", 3), ("test", 1))
        for label in range(10)
        for i in range(count)
    ]
    pixels = draws.integers(0, 256, (len(names), 32, 32, 3), dtype=np.uint8)
    files = {name: encoded(Image.fromarray(each)) for name, each in zip(names, pixels, strict=True)}
    return write_tree(tmp_path_factory.mktemp("photos"), files)


def test_the_presets_are_those_that_are_known() -> None:
    known = {"compact-100k", "cpu-cifar", "digits", "gnap-158k", "mlperf-tiny", "small-50k", "tiny-20k", *PUBLISHED}
    known |= {"cpu-2min", "cpu-10min", "cpu-60min", "cpu-10min-300k", "cpu-60min-300k", "photos", "photos-pretrained"}
    assert all(0 < len(purpose(preset)) < 150 for preset in PRESETS)
    assert {preset.stem for preset in PRESETS} == known
    told = json.loads((HOUSE / "bench" / "results" / "known.json").read_text())
    assert told.keys() <= known


@pytest.mark.parametrize("preset", sorted(PUBLISHED))
def test_the_rows_of_the_2020_project_are_as_its_code_trained_them(preset: str) -> None:
    config = resolve(read_config([presets()[preset]]))
    data, network, growth, learn = config.data, config.network, config.growth, config.train
    assert (data.batch_size, data.augment, learn.precision) == (128, "crop_flip", "float32")
    assert (network.structure, network.channels) == ((0, 0, 1, 0, 0, 1, 0, 1, 0), 16)
    assert (network.cell, network.exit, network.exit_reads, network.final) == ("basic", "mixed", "sum", None)
    assert (learn.optimizer, learn.learning_rate, learn.momentum, learn.weight_decay) == ("sgd", 0.01, 0.9, 1e-4)
    assert cost(grown(config))[-1].weights == (169_392 if network.kind == "dense" else 52_144)
    if preset == "seed-full-ic":
        assert (learn.epochs, learn.milestones, learn.gammas) == (100, (35, 60, 85), (0.1, 0.1, 0.1))
        assert (network.kind, learn.tau_max) == ("full_ic", (0.15, 0.30, 0.45))
    else:
        assert (learn.epochs, growth.epochs) == (250, (25, 50, 75))
        assert learn.tau_max == (0.26, 0.51, 0.76)
    fixed = preset == "seed-iterative-fixed"
    if not fixed:
        assert (data.valid_fraction, learn.decay) == (0, "all")
        assert growth.learning_rate == ("constant" if network.growths else "shared")
    if network.growths and not fixed:
        assert (learn.milestones, learn.gammas) == ((120, 160, 180), (0.1, 0.01, 0.01))
    assert config.prune.enabled == (preset == "seed-2020")


@pytest.mark.parametrize("preset", [each for each in PRESETS if budget(each)], ids=lambda preset: preset.stem)
def test_a_preset_keeps_within_its_budget(preset: Path) -> None:
    config = read_config([preset])
    allowed = budget(preset)
    assert allowed is not None
    network = grown(config)
    weights, rest = cost(network)[-1].weights, cost(network)[-1].parameters - cost(network)[-1].weights
    if config.prune.enabled:
        ratio = config.prune.min_ratio or config.prune.keep_ratio
        assert isinstance(ratio, float)
        weights = round(ratio * weights)
    # The seed project counted no batch norm and no biases; everybody else's budgets count all that is learned.
    assert weights + (rest if preset.stem not in ("seed-2020", "cpu-cifar") else 0) <= allowed * 1.0001
    assert weights > 0.8 * allowed


@pytest.mark.slow
@pytest.mark.parametrize(
    "preset", [each for each in PRESETS if each.stem != "photos-pretrained"], ids=lambda preset: preset.stem
)
def test_a_preset_trains_for_as_few_epochs_as_it_can_and_one_more(preset: Path, photos: Path) -> None:
    source = ["data.limit=60"] if preset.stem == "digits" else [f"data.source={photos}"]
    quick = ["data.batch_size=15", "data.size=16", "train.device=cpu", "train.compile=false"]
    config = read_config([preset], [*source, *quick])
    assert config.network.backbone is None  # which would need a package and its weights
    epochs = fewest_epochs(config) + 1
    summary = train(rescale(config, epochs))
    assert summary.finished
    assert len(read_lines(Path(summary.folder) / "metrics.jsonl")) == epochs
    assert all(each.test is not None for each in summary.exits)
    allowed = budget(preset)
    if allowed is not None:
        assert summary.exits[-1].kept <= allowed
