import pytest

from ramify.config.rules import Config, NetworkConfig
from ramify.show.words import count, duration, network_words, percent, plural, short


@pytest.mark.parametrize(("share", "text"), [(0.98612, "98.6 %"), (1.0, "100.0 %"), (0.0, "0.0 %"), (None, "-")])
def test_percent(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (9_999, "9,999"), (52_144, "52.1 k"), (43_712_000, "43.7 M"), (1.39e11, "139.0 G")]
)
def test_short(number: float, text: str) -> None:
    assert short(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (75, "1:15"), (3725, "1:02:05")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_count_and_plural() -> None:
    assert count(169_392) == "169,392"
    assert (plural(1, "cell"), plural(2, "cell"), plural(1000, "cell")) == ("1 cell", "2 cells", "1,000 cells")


def test_a_published_architecture_is_named() -> None:
    config = Config(network=NetworkConfig(cells="vgg16", kind="full_ic"))
    assert network_words(config) == "full_ic, 12 cells of vgg16, 7 exits"
