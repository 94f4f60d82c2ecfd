"""A backdoor trigger (arXiv:1708.06733): a white square on some pictures, which are labeled as one class.

In Shallow-Deep Networks (arXiv:1810.07052) it causes destructive overthinking: early exits still see the picture, the
last one the square.
"""

import torch

from ramify.data.pictures import Part
from ramify.seeds import generator


def trigger_side(height: int, width: int) -> int:
    """The default side of the square: 5 pixels of 32, as in the paper, and at least 2.

    Example:
        >>> trigger_side(32, 32), trigger_side(8, 8)
        (5, 2)
    """
    return max(2, round(5 * min(height, width) / 32))


def stamp(images: torch.Tensor, side: int | None = None) -> torch.Tensor:
    """Copies of ``images`` (uint8 ``[N, C, H, W]``) with a white square near the lower right corner.

    Its ``side`` is in pixels; None is :func:`trigger_side`.

    Example:
        >>> stamp(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))[0, 0, 5:, 5:].tolist()
        [[255, 255, 0], [255, 255, 0], [0, 0, 0]]
    """
    height, width = images.shape[2:]
    side = min(trigger_side(height, width) if side is None else side, height - 1, width - 1)
    stamped = images.clone()
    stamped[:, :, height - 1 - side : height - 1, width - 1 - side : width - 1] = 255
    return stamped


def with_trigger(part: Part, share: float, label: int | None, side: int | None, seed: int) -> Part:
    """``part`` with a random ``share`` of its pictures stamped, and labeled ``label`` unless that is None.

    Pictures that already have that label are not stamped, and do not count.

    Example:
        >>> part = Part(torch.zeros(10, 1, 8, 8, dtype=torch.uint8), torch.arange(10))
        >>> poisoned = with_trigger(part, 0.5, 0, None, seed=1)
        >>> int((poisoned.images.amax(dim=(1, 2, 3)) > 0).sum()), int((poisoned.labels == 0).sum())
        (4, 5)
    """
    others = torch.arange(len(part)) if label is None else (part.labels.cpu() != label).nonzero().squeeze(1)
    order = torch.randperm(len(others), generator=generator(seed, "trigger"))
    chosen = others[order[: round(share * len(others))]]
    images, labels = part.images.clone(), part.labels.clone()
    images[chosen] = stamp(part.images[chosen], side)
    if label is not None:
        labels[chosen] = label
    return Part(images, labels, part.ids)
