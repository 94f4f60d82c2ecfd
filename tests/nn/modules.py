"""Classifiers in three styles to which exits are attached."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.attach import attach_exits
from ramify.nn.attached import Attached

CLASSES = 5
PICTURES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def vgg() -> nn.Module:
    """Nothing but ``nn.Sequential``, with ReLUs that work in place."""

    def block(channels: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True), nn.MaxPool2d(2)]

    return nn.Sequential(
        *block(3, 8), *block(8, 12), *block(12, 16), nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Dropout(),
        nn.Linear(24, CLASSES),
    )  # fmt: skip


class Block(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        stride = 1 if channels == out else 2
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class Residual(nn.Module):
    """Nested modules, with what has no weights done by functions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(Block(8, 8), Block(8, 8))
        self.layer2 = nn.Sequential(Block(8, 12), Block(12, 12))
        self.layer3 = nn.Sequential(Block(12, 16))
        self.unused = nn.Linear(2, 2)
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        count = x.size(0)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.avg_pool2d(x, 4)
        x = F.dropout(x.view(count, -1), 0.5, training=self.training)
        logits: Tensor = self.fc(x)
        return logits


class Mixing(nn.Module):
    """One layer of a mixer: parameters of its own, layer norms, and a linear layer across tokens."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across = nn.Parameter(torch.randn(tokens, tokens) / tokens)
        self.along = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.matmul(self.across, self.norm1(x))
        mixed: Tensor = x + self.along(self.norm2(x))
        return mixed


class Mixer(nn.Module):
    """Functional style: parameters and a constant in forward, depthwise convolutions, group norm, then tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.center = torch.tensor([0.5, 0.4, 0.3])[:, None, None]
        self.scale = nn.Parameter(torch.full((3, 1, 1), 2.0))
        self.filters = nn.Parameter(torch.randn(12, 3, 4, 4) / 7)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.norm = nn.GroupNorm(3, 12)
        self.mixing = nn.ModuleList(Mixing(16, 12) for _ in range(3))
        self.bias = nn.Parameter(torch.zeros(CLASSES))
        self.reading = nn.Parameter(torch.randn(CLASSES, 12))

    def forward(self, images: Tensor, temperature: float | None = None) -> Tensor:
        x = F.conv2d((images - self.center) * self.scale, self.filters, stride=4)
        x = x + F.hardswish(self.norm(self.depthwise(x)))
        x = x.flatten(2).transpose(1, 2)
        for layer in self.mixing:
            x = layer(x)
        logits: Tensor = F.linear(torch.mean(x, dim=1), self.reading, self.bias)
        return logits if temperature is None else logits / temperature


def trained(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A module whose batch norms have seen pictures, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = make()
        for _ in range(3):
            module(torch.rand(16, 3, 16, 16))
    return module.eval()


AT = {vgg: ("3", "6", "13"), Residual: ("conv1", "layer1.0", "layer2"), Mixer: ("mixing.0", "mixing.1", "mixing.2")}
KINDS = pytest.mark.parametrize("make", AT, ids=lambda make: make.__name__)


def attached(make: Callable[[], nn.Module], freeze: bool = False, seed: int = 0) -> Attached:
    return attach_exits(trained(make, seed), AT[make], example=PICTURES[:1], freeze=freeze, seed=seed)
