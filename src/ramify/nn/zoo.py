"""Published architectures: a stem, a list of cells, and a final classifier.

They were published for pictures of 32 pixels a side; any size down to ``smallest`` works.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ramify.nn.cells import CELLS, cell_choices

StemKind = Literal["block", "convolution", "whitened", "none"]


@dataclass(frozen=True)
class CellSpec:
    """A cell by its type (a name in :data:`ramify.nn.cells.CELLS`), the channels it gives, and its stride."""

    type: str
    channels: int
    stride: int = 1


@dataclass(frozen=True)
class Architecture:
    """A published network: a ``stem`` in :data:`ramify.nn.stem.STEMS` that gives ``width`` channels, and cells.

    Its ``final`` classifier, in :data:`ramify.nn.exit.EXITS`, reads a map pooled to one pixel. ``smallest`` is the
    smallest side of a picture that works.
    """

    stem: StemKind
    width: int
    cells: tuple[CellSpec, ...]
    final: str = "average"
    smallest: int = 8


def _repeated(kind: str, widths: Sequence[int], times: int) -> tuple[CellSpec, ...]:
    """``times`` cells of each width; all but the first width start with a stride of 2."""
    return tuple(
        CellSpec(kind, width, 2 if place > 0 and i == 0 else 1)
        for place, width in enumerate(widths)
        for i in range(times)
    )


_VGG16 = ["64", "64/", "128", "128/", "256", "256", "256/", "512", "512", "512/", "512", "512", "512/"]
_MOBILENET = ["64", "128/", "128", "256/", "256", "512/", "512", "512", "512", "512", "512", "1024/", "1024"]


def _listed(kind: str, texts: Sequence[str]) -> tuple[CellSpec, ...]:
    """Cells from their widths; a slash is a stride of 2."""
    return tuple(CellSpec(kind, int(text.rstrip("/")), 2 if text.endswith("/") else 1) for text in texts)


ZOO: dict[str, Architecture] = {
    # arXiv:1409.1556 with batch norm, and one linear layer behind global pooling, as is usual on 32x32 pictures.
    # Its first convolution is the stem.
    "vgg16": Architecture("block", 64, _listed("plain", _VGG16[1:])),
    # arXiv:1512.03385, the CIFAR form with 3 x 9 cells; a 1x1 convolution where the shape changes.
    "resnet56": Architecture("block", 16, _repeated("basic", (16, 32, 64), 9)),
    # arXiv:1605.07146: 3 x 5 cells of 4 times the width, as in Shallow-Deep Networks; without dropout.
    "wideresnet32_4": Architecture("convolution", 16, _repeated("preactivation", (64, 128, 256), 5), "normed"),
    # arXiv:1704.04861 with a stem of stride 1, as is usual on 32x32 pictures.
    "mobilenet": Architecture("block", 32, _listed("separable", _MOBILENET)),
    # LeNet-5 in the form that SNIP (arXiv:1810.02340) and others prune: 20 and 50 channels, 500 units.
    "lenet5": Architecture(
        "none", 0, (CellSpec("unpadded", 20), CellSpec("unpadded", 50), CellSpec("linear", 500)), smallest=16
    ),
    # The fully connected network of the same papers.
    "lenet300": Architecture("none", 0, (CellSpec("linear", 300), CellSpec("linear", 100))),
}


def widened() -> tuple[list[str], list[str]]:
    """The values of ``network.cell``, and the architectures, that can gain inner channels.

    Example:
        >>> widened()
        (['basic', 'depthwise', 'compact'], ['resnet56', 'wideresnet32_4'])
    """
    cells = [name for name, cell in cell_choices().items() if cell.widens]
    return cells, [name for name, built in ZOO.items() if all(CELLS[spec.type].widens for spec in built.cells)]
