"""What a set of pictures is, once decoded."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Part:
    """Labelled pictures of one size.

    Attributes:
        images: uint8 ``[N, C, H, W]``, values 0 to 255.
        labels: int64 ``[N]``, each an index into the class names.
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(self, index: torch.Tensor) -> "Part":
        """The pictures at ``index`` (int64 ``[M]``), in that order."""
        return Part(self.images[index], self.labels[index])

    def to(self, device: torch.device) -> "Part":
        """The same pictures on ``device``."""
        return Part(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class PictureSet:
    """The pictures of one source: a training part, a test part, and the names of the classes."""

    train: Part
    test: Part
    classes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one picture."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width
