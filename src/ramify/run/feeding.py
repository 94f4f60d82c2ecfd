"""What a training step is fed: pictures changed by their seeds, and what they are to be taken for.

Every process of a run draws for the whole batch and then takes its share, so their number changes no picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ramify.config import Config
from ramify.data.augment import augmentation, changed, draw_changes
from ramify.data.cutout import cutout
from ramify.data.mix import draw_mix, mixed, mixed_labels
from ramify.data.pictures import Part
from ramify.data.sizes import scaled, scaled_size
from ramify.data.strong import strong
from ramify.run.evaluate import to_float
from ramify.schedule import mixing_at, side_at
from ramify.seeds import generator


@dataclass(frozen=True)
class Fed:
    """What one step is fed.

    Attributes:
        images: float32 in [0, 1], ``[B, C, H, W]``.
        targets: what the loss takes: the labels, int64 ``[B]``, or the share of each class, float ``[B, C]``.
        labels: int64 ``[B]``, by which right answers are counted: of a mixed picture that of its larger share.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor


class Feeder:
    """Changes the pictures of one epoch, batch by batch, as the configuration says.

    Each part draws from a generator of its own, so that switching one on leaves what the others draw: ``data.augment``
    moves and mirrors, then changes shape or colour (:mod:`ramify.data.strong`), ``data.cutout`` blanks, ``data.sizes``
    scales, and ``data.mixup`` or ``data.cutmix`` mixes.

    Args:
        config: a resolved configuration.
        epoch: the epoch.
        mean: the mean colour in [0, 1], ``[C]``, with which cutout blanks: zero for the network.
        sizes: of the batches that will be fed, in their order.
        height: of the pictures.
    """

    def __init__(self, config: Config, epoch: int, mean: Tensor, sizes: Sequence[int], height: int) -> None:
        self._data, self._epoch, self._epochs = config.data, epoch, config.train.epochs
        self._how = augmentation(config.data.augment, config.data.source)
        assert config.network.classes is not None
        self._classes = config.network.classes
        self._fill = (mean * 255).round().to(torch.uint8)
        # Drawn and sent at once: a GPU that waits for numbers at each step is idle meanwhile.
        moving = generator(config.seed, "augment", epoch)
        moves = [draw_changes(size, height, self._how, moving) for size in sizes]
        self._moves = iter(torch.cat(moves, dim=1).to(mean.device).split(list(sizes), dim=1))
        self._changing = generator(config.seed, "strong", epoch)
        self._blanking = generator(config.seed, "cutout", epoch)
        self._mixing = generator(config.seed, "mix", epoch)

    def feed(self, batch: Part, mine: slice, share: float) -> Fed:
        """Change the next ``batch``, whole, when a ``share`` of the epoch is done; gives what is ``mine`` of it."""
        data = self._data
        images, labels = changed(batch.images, self._how, next(self._moves)), batch.labels
        if data.augment == "strong":
            images = strong(images, self._changing)
        if data.cutout is not None:
            images = cutout(images, data.cutout, self._blanking, self._fill)
        side = side_at(self._epoch, data.sizes)
        mix = None
        if data.mixup or data.cutmix:
            size = scaled_size(images.shape[2], images.shape[3], side)
            probability = mixing_at(self._epoch, share, self._epochs, data.mix_ramp)
            mix = draw_mix(size, data.mixup, data.cutmix, probability, self._mixing)
        if mix is None:
            return Fed(scaled(to_float(images[mine]), side), labels[mine], labels[mine])
        targets = mixed_labels(labels, mix, self._classes)[mine]
        return Fed(mixed(scaled(to_float(images), side), mix)[mine], targets, targets.argmax(dim=1))
