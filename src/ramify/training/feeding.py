"""What a training step is fed: pictures changed by their seeds, and what they are to be taken for.

Every process of a run draws for the whole batch and then takes its share, so their number changes no picture.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ramify.config.rules import Config
from ramify.data.augment import CHANGES, augmentation, changed, draw_changes, farthest
from ramify.data.cutout import cutout
from ramify.data.decode import PictureSize
from ramify.data.mix import draw_mix, mixed, mixed_labels
from ramify.data.photo import draw_photo, photo
from ramify.data.pictures import Part
from ramify.data.sizes import scaled, scaled_size
from ramify.run.evaluate import to_float
from ramify.schedule import mixing_at, side_at
from ramify.seeds import generator


@dataclass(frozen=True)
class Batch:
    """What one step is fed.

    Attributes:
        images: float32 in [0, 1], ``[B, C, H, W]``.
        targets: what the loss takes: the labels, int64 ``[B]``, or the share of each class, float ``[B, C]``.
        labels: int64 ``[B]``, by which right answers are counted: of a mixed picture that of its larger share.
        index: which of the training pictures they are, int64 ``[B]``.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor
    index: Tensor


class Feeder:
    """Changes the pictures of one epoch, batch by batch, as the configuration says.

    Each part draws from a generator of its own, so that switching one on leaves what the others draw: ``data.augment``
    moves and mirrors, then changes shape or color (:mod:`ramify.data.strong`), or does it all at once
    (:mod:`ramify.data.photo`), ``data.cutout`` blanks, ``data.sizes`` scales, ``data.mixup`` or ``data.cutmix`` mixes.

    Args:
        config: a resolved configuration.
        epoch: the epoch.
        mean: the mean colour in [0, 1], ``[C]``, with which cutout blanks: zero for the network.
        part: the training pictures, as :attr:`ramify.run.pictures.Parts.fed` has them.
        dealt: which of them make each batch, in the order of the batches; int64, on the CPU.
    """

    def __init__(self, config: Config, epoch: int, mean: Tensor, part: Part, dealt: Sequence[Tensor]) -> None:
        self._data, self._epoch, self._epochs = config.data, epoch, config.train.epochs
        assert config.network.classes is not None
        self._classes = config.network.classes
        self._fill = (mean * 255).round().to(torch.uint8)
        self._blanking = generator(config.seed, "cutout", epoch)
        self._mixing = generator(config.seed, "mix", epoch)
        self._moved = (self._crop if config.data.augment == "photo" else self._move)(config, part, dealt)

    def _move(self, config: Config, part: Part, dealt: Sequence[Tensor]) -> Iterator[tuple[Part, Tensor]]:
        """The batches, moved and changed, and which pictures they are made of."""
        how = augmentation(config.data.augment, config.data.source)
        device, data = part.device, config.data
        reach = farthest(part.shape[1], data.shift)
        at_once = batches_per_call(device)
        sizes = [len(index) for index in dealt]
        moving = generator(config.seed, "augment", self._epoch)
        changing = generator(config.seed, config.data.augment, self._epoch)
        # Drawn and sent at once: a GPU that waits for numbers at each step is idle meanwhile.
        moves = torch.cat([draw_changes(size, how, moving, reach) for size in sizes], dim=1).to(device)
        order = torch.cat(list(dealt)).to(device)
        if data.flip == "alternating":
            odd = torch.rand(len(part), generator=generator(config.seed, "flip")) < 0.5
            moves[2] = (odd.to(device)[order] + self._epoch) % 2
        start = 0
        for first in range(0, len(sizes), at_once):
            some = sizes[first : first + at_once]
            here = slice(start, start + sum(some))
            start = here.stop
            batch = part[order[here]]
            images = changed(batch.images, how, moves[:, here], reach, data.border)
            if data.augment in CHANGES:
                images = CHANGES[data.augment](images, some, changing)
            split = zip(images.split(some), batch.labels.split(some), order[here].split(some), strict=True)
            yield from ((Part(own, labels), index) for own, labels, index in split)

    def _crop(self, config: Config, part: Part, dealt: Sequence[Tensor]) -> Iterator[tuple[Part, Tensor]]:
        """The batches as ``data.augment`` photo changes them, of the size that the network reads."""
        assert config.network.input_shape is not None
        size: PictureSize = config.network.input_shape[1:]
        device, mirror = part.images.device, augmentation("auto", config.data.source) == "crop_flip"
        changes = draw_photo(sum(map(len, dealt)), mirror, generator(config.seed, "photo", self._epoch)).to(device)
        start = 0
        for index in dealt:
            batch, here = part[index.to(device)], slice(start, start + len(index))
            start = here.stop
            yield Part(photo(batch.images, size, changes[here]), batch.labels), index.to(device)

    def feed(self, mine: slice, share: float) -> Batch:
        """Change the next batch, whole, when a ``share`` of the epoch is done; gives what is ``mine`` of it."""
        data = self._data
        batch, index = next(self._moved)
        images, labels, index = batch.images, batch.labels, index[mine]
        if data.cutout is not None:
            images = cutout(images, data.cutout, self._blanking, self._fill)
        side = side_at(self._epoch, data.sizes)
        mix = None
        if data.mixup or data.cutmix:
            size = scaled_size(images.shape[2], images.shape[3], side)
            probability = mixing_at(self._epoch, share, self._epochs, data.mix_ramp)
            mix = draw_mix(size, data.mixup, data.cutmix, probability, self._mixing)
        if mix is None:
            return Batch(scaled(to_float(images[mine]), side), labels[mine], labels[mine], index)
        targets = mixed_labels(labels, mix, self._classes)[mine]
        return Batch(mixed(scaled(to_float(images), side), mix)[mine], targets, targets.argmax(dim=1), index)


def batches_per_call(device: torch.device) -> int:
    """How many batches are moved and changed at once: many where a call costs more than what it does."""
    return 16 if device.type == "cuda" else 1
