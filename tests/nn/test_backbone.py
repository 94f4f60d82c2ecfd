"""A network of the user's or of timm, with a last layer for the classes at hand."""

import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import fx, nn

from ramify.config.rules import NetworkConfig
from ramify.errors import ConfigError
from ramify.nn.backbone import IMAGENET, load_backbone, logits_layer
from ramify.seeds import drawing

HERE = "tests.nn.test_backbone"


def own(width: int = 4, classes: int = 7, ending: str = "linear", norms: bool = False) -> nn.Module:
    """A module with one of several endings, of which the last layer must be found."""
    ends: dict[str, list[nn.Module]] = {
        "linear": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(width, classes)],
        "conv": [nn.Conv2d(width, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
        "softmax": [nn.Flatten(), nn.Linear(width * 64, classes), nn.Softmax(1)],
    }
    made = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), *ends[ending])
    if norms:
        made.mean, made.std = [0.5], [0.25]  # type: ignore[assignment]
    return made


def a_number() -> int:
    return 3


def failing() -> nn.Module:
    raise ValueError("no luck")


def config(**keys: object) -> NetworkConfig:
    return NetworkConfig.model_validate({"module": f"{HERE}:own", "input_shape": (1, 8, 8), "classes": 10, **keys})


@pytest.mark.parametrize("ending", ["linear", "conv"])
def test_the_last_layer_is_for_the_classes_at_hand(ending: str) -> None:
    module, _ = load_backbone(config(module_args={"ending": ending}), seed=0)
    again, _ = load_backbone(config(module_args={"ending": ending}), seed=0)
    assert module(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    graph = fx.Tracer().trace(module)
    name, _ = logits_layer(module, graph)
    assert torch.equal(module.get_parameter(f"{name}.weight"), again.get_parameter(f"{name}.weight"))


def test_a_last_layer_that_fits_stays_and_the_seed_draws_the_module() -> None:
    module, _ = load_backbone(config(module_args={"classes": 10}), seed=1)
    with drawing(1, "module"):
        drawn = own(classes=10)
    assert all(torch.equal(value, drawn.state_dict()[name]) for name, value in module.state_dict().items())


def test_weights_are_read_whatever_wraps_them(tmp_path: Path) -> None:
    state = own(classes=10).state_dict()
    save_file({f"module.{name}": value.contiguous() for name, value in state.items()}, tmp_path / "ddp.safetensors")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "nested.pt")
    for name in ("ddp.safetensors", "nested.pt"):
        module, _ = load_backbone(config(module_args={"classes": 10}, weights=str(tmp_path / name)))
        assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def test_a_last_layer_of_other_classes_is_drawn_and_all_else_is_read(tmp_path: Path) -> None:
    state = own(classes=1000).state_dict()
    torch.save(state, tmp_path / "w.pt")
    found = load_backbone(config(weights=str(tmp_path / "w.pt")))[0].state_dict()
    assert torch.equal(found["0.weight"], state["0.weight"])
    assert found["6.weight"].shape[0] == 10


def test_normalization_is_the_modules_or_what_is_said() -> None:
    args = {"norms": True}
    assert load_backbone(config(module_args=args))[1] == ((0.5,), (0.25,))
    assert load_backbone(config(module_args=args, normalization="data"))[1] is None
    assert load_backbone(config(module_args=args, normalization="none"))[1] == ((0.0,), (1.0,))
    assert load_backbone(config(normalization=((0.1,), (0.2,))))[1] == ((0.1,), (0.2,))
    assert load_backbone(config())[1] is None


def odd_weights(folder: Path) -> dict[str, str]:
    """Files that are no weights of :func:`own`, and a part of what is said of them."""
    torch.save(own(), folder / "pickled.pt")
    torch.save({"state_dict": own(width=5).state_dict()}, folder / "wide.pt")
    few, many = own().state_dict(), own().state_dict()
    del few["0.weight"]
    many["9.weight"] = torch.zeros(1)
    torch.save(few, folder / "few.pt")
    torch.save(many, folder / "many.pt")
    (folder / "text.safetensors").write_text("no")
    return {
        "pickled.pt": "more than tensors",
        "wide.pt": "0.bias, 0.weight, 1.bias and",
        "few.pt": "misses 0.weight",
        "many.pt": "9.weight",
        "text.safetensors": "cannot be read",
        "none.pt": "does not exist",
    }


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    for name, words in odd_weights(tmp_path).items():
        with pytest.raises(ConfigError, match=r"^network\.weights: ") as error:
            load_backbone(config(weights=str(tmp_path / name)))
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"module": "no_such_file_here:make"}, "no_such_file_here"),
        ({"module": f"{HERE}:ow"}, "(nearest: own)"),
        ({"module": f"{HERE}:a_number"}, "gives a int"),
        ({"module": f"{HERE}:failing"}, "ValueError: no luck"),
        ({"module_args": {"depth": 3}}, "depth"),
        ({"module_args": {"ending": "softmax"}}, "Softmax"),
        ({"normalization": "imagenet"}, "3 means"),
    ],
)
def test_what_cannot_be_made_is_a_sentence(keys: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_backbone(config(**keys))
    [problem] = error.value.problems
    assert problem.startswith("network.")
    assert "accepted: " in problem
    assert words in problem


def test_a_file_in_the_folder_of_the_process_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_net_in_a_folder.py").write_text("from tests.nn.test_backbone import own\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert load_backbone(config(module="a_net_in_a_folder:own"))[0](torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert sys.path == before


def test_timm_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"network\.backbone: got 'timm/resnet18'.*pip install 'ramify\[timm\]'"):
        load_backbone(config(module=None, backbone="timm/resnet18"))


def test_timm_makes_the_network_and_says_how_it_wants_its_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the package: what it is asked for, and what is taken from it."""
    asked: dict[str, object] = {}

    def create_model(name: str, **options: object) -> nn.Module:
        asked.update(options, name=name)
        made = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
        made.pretrained_cfg = {"mean": IMAGENET[0], "std": IMAGENET[1]}  # type: ignore[assignment]
        return made

    stand_in = types.ModuleType("timm")
    monkeypatch.setattr(stand_in, "create_model", create_model, raising=False)
    monkeypatch.setattr(stand_in, "is_model", lambda name: name == "some", raising=False)
    monkeypatch.setattr(stand_in, "list_models", lambda: ["some"], raising=False)
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    wanted = {"module": None, "input_shape": (3, 8, 8)}
    _, normalization = load_backbone(config(backbone="timm/some", pretrained=True, **wanted))
    assert normalization == IMAGENET
    assert asked == {"name": "some", "pretrained": True, "num_classes": 10, "in_chans": 3}
    with pytest.raises(ConfigError, match="nearest: timm/some"):
        load_backbone(config(backbone="timm/somme", **wanted))
