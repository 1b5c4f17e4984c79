"""The embedded data set."""

from importlib.resources import files
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.functional import interpolate

from vitlocal.data.base import ImageDataModule
from vitlocal.data.dataset import Images, Splits
from vitlocal.data.split import stratified_split

SIZE = 32
LEVELS = 16  # the images' pixels are counts from 0 to 16
TEST_SHARE = 0.2


class Digits(ImageDataModule):
    """1,797 handwritten digits, part of the package: grey, 8x8 pixels resized to 32x32.

    The test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, 1998, UCI
    Machine Learning Repository, doi:10.24432/C50P49, CC BY 4.0), as in scikit-learn's
    ``load_digits``. Of every digit a fifth, always the same images, is for testing: 1,437 images
    train and 360 test.
    """

    name = "digits"
    # Not svhn, the policy learned on digits: its shears and inversions are far stronger, and a ViT on
    # this few images needs many more epochs under it. Neither mirrors.
    photometric: ClassVar[dict[str, Any]] = {
        "class_path": "vitlocal.protocol.AutoAugment",
        "init_args": {"policy": "cifar10"},
    }

    def load(self) -> Splits:
        """Read the digits out of the package."""
        with files("vitlocal.data").joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
            counts, labels = arrays["images"], arrays["labels"].astype(np.int64)
        grey = torch.from_numpy(counts).float()[:, None] * (255 / LEVELS)
        resized = interpolate(grey, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        images = resized.round().to(torch.uint8).numpy()
        class_names = tuple("0123456789")
        train, test = stratified_split(labels, TEST_SHARE, seed=0, class_names=class_names)
        return Splits(
            source="the embedded digits",
            class_names=class_names,
            train=Images(images[train], labels[train]),
            test=Images(images[test], labels[test]),
        )
