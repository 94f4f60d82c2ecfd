"""The embedded default: scikit-learn's handwritten digits."""

import numpy as np
import torch

from ramify.data.pictures import Part, PictureSet


def load_digits() -> PictureSet:
    """1,797 gray pictures ``[1, 8, 8]`` of the digits "0" to "9", all in the training part.

    Their values 0 to 16 are scaled to 0 to 255.
    """
    from sklearn import datasets  # takes longer to import than everything else here

    pixels, labels = datasets.load_digits(return_X_y=True)
    images = torch.from_numpy(np.rint(pixels * (255 / 16)).astype(np.uint8)).reshape(-1, 1, 8, 8)
    nothing = Part(images[:0], torch.empty(0, dtype=torch.int64))
    train = Part(images, torch.from_numpy(labels.astype(np.int64)))
    return PictureSet(train, nothing, tuple(str(digit) for digit in range(10)))
