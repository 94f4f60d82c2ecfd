"""Networks as others write them, of plain PyTorch layers, six in different styles; each ``images -> logits [B, 3]``."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.ops.networks import shake


class Block(nn.Module):
    """Two layers and a shortcut, a 1x1 convolution where the shape changes."""

    def __init__(self, reads: int, gives: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(reads, gives, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(gives)
        self.conv2 = nn.Conv2d(gives, gives, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(gives)
        self.downsample = (
            nn.Sequential(nn.Conv2d(reads, gives, 1, stride, bias=False), nn.BatchNorm2d(gives))
            if (reads, stride) != (gives, 1)
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        inner = F.relu(self.bn1(self.conv1(x)), inplace=True)
        outer: Tensor = self.bn2(self.conv2(inner))
        outer += shortcut
        return F.relu(outer)


class Residual(nn.Module):
    """A residual network, additions in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.layers = nn.Sequential(Block(4, 4, 1), Block(4, 5, 2), Block(5, 5, 1))
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.stem(x))
        logits: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))
        return logits


class Dense(nn.Module):
    """Concatenation: each layer reads all before it, through a batch norm of its own, and gives a few channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4 + 3 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(4 + 3 * i, 3, 3, padding=1, bias=False) for i in range(3))
        self.transition = nn.Sequential(nn.BatchNorm2d(13), nn.ReLU(), nn.Conv2d(13, 6, 1), nn.AvgPool2d(2))
        self.last = nn.BatchNorm2d(6)
        self.classifier = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            maps.append(conv(F.relu(norm(torch.cat(maps, dim=1)))))
        x = F.relu(self.last(self.transition(torch.cat(maps, dim=1))))
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits


class Inverted(nn.Module):
    """Expansion, depthwise convolution, squeeze and excitation, projection; an identity around it where it fits."""

    def __init__(self, reads: int, inner: int, gives: int, stride: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(reads, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.Hardswish())
        self.depthwise = nn.Sequential(
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.Hardswish()
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(inner, 2, 1), nn.ReLU(), nn.Conv2d(2, inner, 1), nn.Hardsigmoid()
        )
        self.project = nn.Sequential(nn.Conv2d(inner, gives, 1, bias=False), nn.BatchNorm2d(gives))
        self.same = (reads, stride) == (gives, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.depthwise(self.expand(x))
        outer: Tensor = self.project(inner * self.gate(inner))
        return x + outer if self.same else outer


class MobileNet(nn.Module):
    """Depthwise convolutions and squeeze gates."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1), nn.Hardswish(), Inverted(4, 6, 4, 1), Inverted(4, 7, 5, 2), nn.Conv2d(5, 8, 1)
        )
        self.classifier = nn.Sequential(nn.Linear(8, 6), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.features(x)).mean([-2, -1])
        logits: Tensor = self.classifier(x)
        return logits


class VGG(nn.Module):
    """Convolutions in one sequence, then linear layers on the flattened map."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for reads, gives in ((3, 4), (4, 5), (5, 4)):
            layers += [nn.Conv2d(reads, gives, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(4 * 2 * 2, 7), nn.ReLU(), nn.Dropout(), nn.Linear(7, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        logits: Tensor = self.head(x.view(x.size(0), -1))
        return logits


class Attention(nn.Module):
    """One layer for queries, keys and values of all heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        given = F.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.proj(given.transpose(1, 2).reshape(batch, tokens, width))
        return mixed


class Layer(nn.Module):
    """A layer of a transformer, norms first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 6), nn.GELU(), nn.Linear(6, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        outer: Tensor = x + self.mlp(self.norm2(x))
        return outer


class ViT(nn.Module):
    """A vision transformer with fused projections, a class token and learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 17, 8))
        self.blocks = nn.Sequential(Layer(8, 2), Layer(8, 2))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), dim=1) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


class Reused(nn.Module):
    """Layers that are used twice: one that refines a map, and a branch for two halves of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.refine = nn.Conv2d(4, 4, 3, padding=1)
        self.branch = nn.Conv2d(4, 5, 3, 2, 1)
        self.norm = nn.BatchNorm2d(5)
        self.hidden = nn.Linear(10, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for _ in range(2):
            x = F.relu(self.refine(x))
        halves = [F.relu(self.norm(self.branch(half))).amax(dim=(2, 3)) for half in (x[..., :8], x[..., 8:])]
        logits: Tensor = self.head(torch.tanh(self.hidden(torch.cat(halves, dim=1))))
        return logits


FOREIGN: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "dense": Dense,
    "mobilenet": MobileNet,
    "vgg": VGG,
    "vit": ViT,
    "reused": Reused,
}
"""All six, by name; they read pictures of :data:`SHAPE`."""

SHAPE = (3, 16, 16)


def foreign(name: str) -> nn.Module:
    """One of :data:`FOREIGN` in evaluation mode, with weights, norms and biases of its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = FOREIGN[name]()
    shake(network, 0)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                module.bias.normal_(generator=draw)
            elif isinstance(module, nn.LayerNorm):
                module.weight.normal_(generator=draw)
                module.bias.normal_(generator=draw)
    return network.eval()


def pictures(count: int = 2) -> Tensor:
    """Random pictures for them."""
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))
