"""The batches of an epoch: pictures changed by draws from the run's seed, and their targets.

Every process of a run draws for the whole batch and then takes its share, so the number of processes changes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ramify.config.rules import Config
from ramify.data.augment import CHANGES, augmentation, changed, draw_changes, farthest
from ramify.data.cutout import cutout
from ramify.data.mix import draw_mix, mixed, mixed_labels
from ramify.data.photo import draw_photo, photo
from ramify.data.pictures import Part
from ramify.data.sizes import scaled, scaled_size
from ramify.nn.branching import Branching
from ramify.run.evaluate import to_float
from ramify.schedule import mixing_at, side_at
from ramify.seeds import generator


@dataclass(frozen=True)
class Batch:
    """The input of a training step.

    Attributes:
        images: float32 in [0, 1], ``[B, C, H, W]``.
        targets: of the loss: the labels, int64 ``[B]``, or the share of each class, float ``[B, C]``.
        labels: int64 ``[B]``, of the accuracy; a mixed picture has the label of its larger share.
        index: of the training pictures, int64 ``[B]``.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor
    index: Tensor


class Feeder:
    """Changes the pictures of one epoch, batch by batch.

    Each change has its own generator, so that switching one on leaves the draws of the others. ``data.augment`` moves
    and mirrors, then changes shape or color (:mod:`ramify.data.strong`), or does all at once
    (:mod:`ramify.data.photo`); ``data.cutout`` blanks, ``data.sizes`` scales, ``data.mixup`` and ``data.cutmix`` mix.

    Args:
        config: a resolved configuration.
        epoch: from 1.
        network: what is trained; cutout blanks with its mean color, which is zero behind its normalization.
        part: the training pictures; those of :attr:`ramify.run.pictures.Parts.larger` under ``data.augment`` photo.
        batches: the pictures of each batch, int64 on the CPU.
    """

    def __init__(self, config: Config, epoch: int, network: Branching, part: Part, batches: Sequence[Tensor]) -> None:
        self._data, self._epoch, self._epochs, self._network = config.data, epoch, config.train.epochs, network
        self._fill = (network.mean * 255).round().to(torch.uint8)
        self._blanking = generator(config.seed, "cutout", epoch)
        self._mixing = generator(config.seed, "mix", epoch)
        self._changed = (self._crop if config.data.augment == "photo" else self._move)(config, part, batches)

    def _move(self, config: Config, part: Part, batches: Sequence[Tensor]) -> Iterator[tuple[Part, Tensor]]:
        """The batches, moved and changed, with the indices of their pictures."""
        how = augmentation(config.data.augment, config.data.source)
        device, data = part.device, config.data
        reach = farthest(part.shape[1], data.shift)
        at_once = batches_per_call(device)
        sizes = [len(index) for index in batches]
        moving = generator(config.seed, "augment", self._epoch)
        changing = generator(config.seed, config.data.augment, self._epoch)
        # Drawn and sent at once, so that no step waits for numbers.
        moves = torch.cat([draw_changes(size, how, moving, reach) for size in sizes], dim=1).to(device)
        order = torch.cat(list(batches)).to(device)
        if data.flip == "alternating":
            odd = torch.rand(len(part), generator=generator(config.seed, "flip")) < 0.5
            moves[2] = (odd.to(device)[order] + self._epoch) % 2
        start = 0
        for first in range(0, len(sizes), at_once):
            group = sizes[first : first + at_once]
            span = slice(start, start + sum(group))
            start = span.stop
            pictures = part[order[span]]
            images = changed(pictures.images, how, moves[:, span], reach, data.border)
            if data.augment in CHANGES:
                images = CHANGES[data.augment](images, group, changing)
            split = zip(images.split(group), pictures.labels.split(group), order[span].split(group), strict=True)
            yield from ((Part(own, labels), index) for own, labels, index in split)

    def _crop(self, config: Config, part: Part, batches: Sequence[Tensor]) -> Iterator[tuple[Part, Tensor]]:
        """The batches as ``data.augment`` photo changes them, in the size that the network reads."""
        _, height, width = self._network.input_shape
        device, mirror = part.labels.device, augmentation("auto", config.data.source) == "crop_flip"
        changes = draw_photo(sum(map(len, batches)), mirror, generator(config.seed, "photo", self._epoch)).to(device)
        start = 0
        for index in batches:
            batch, span = part[index.to(device)], slice(start, start + len(index))
            start = span.stop
            yield Part(photo(batch.images, (height, width), changes[span]), batch.labels), index.to(device)

    def feed(self, own: slice, share: float) -> Batch:
        """Change the whole next batch when a ``share`` of the epoch is done, and return its ``own`` pictures."""
        data = self._data
        batch, index = next(self._changed)
        images, labels, index = batch.images, batch.labels, index[own]
        if data.cutout is not None:
            images = cutout(images, data.cutout, self._blanking, self._fill)
        side = side_at(self._epoch, data.sizes)
        mix = None
        if data.mixup or data.cutmix:
            size = scaled_size(images.shape[2], images.shape[3], side)
            probability = mixing_at(self._epoch, share, self._epochs, data.mix_ramp)
            mix = draw_mix(size, data.mixup, data.cutmix, probability, self._mixing)
        if mix is None:
            return Batch(scaled(to_float(images[own]), side), labels[own], labels[own], index)
        targets = mixed_labels(labels, mix, self._network.classes)[own]
        return Batch(mixed(scaled(to_float(images), side), mix)[own], targets, targets.argmax(dim=1), index)


def batches_per_call(device: torch.device) -> int:
    """How many batches are changed by one call: many on a GPU, where a call takes longer than its work."""
    return 16 if device.type == "cuda" else 1
