"""Images in a folder, to predict what they show."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as TF

from vitlocal.data.base import ImageDataModule
from vitlocal.data.dataset import Batch, Splits
from vitlocal.data.decode import Resize, decode
from vitlocal.data.listing import image_files
from vitlocal.data.samplers import EvaluationSampler
from vitlocal.errors import InputError


class UnlabelledImages(ImageDataModule):
    """The images of a folder and of the folders below, for ``predict`` alone.

    They are read as those of :class:`ImageFolder`, each when its batch is due; nothing is kept of them.

    Args:
        path: The folder.
        image_size: Height and width of the images that the model takes.
        resize: How an image of another shape comes to that size, as in training.
        in_channels: 3 for colour; 1 makes the images grey.
        batch_size: Images a batch, on each device.

    Raises:
        InputError: an argument is out of its range.
    """

    photometric: ClassVar[dict[str, Any]] = {"class_path": "vitlocal.protocol.ColorJitter"}

    def __init__(
        self,
        path: str,
        image_size: tuple[int, int],
        resize: Resize = "crop",
        in_channels: int = 3,
        batch_size: int = 128,
    ) -> None:
        super().__init__(batch_size=batch_size)
        if min(image_size) < 1 or in_channels not in (1, 3):
            raise InputError(
                f"image_size={image_size} and in_channels={in_channels}: give at least 1 pixel a side, and "
                "1 channel or 3"
            )
        self.path = Path(path).expanduser().absolute()
        self.name = self.path.name
        self.image_size = (image_size[0], image_size[1])
        self.resize = resize
        self.in_channels = in_channels
        self._files: ImageFiles | None = None

    def load(self) -> Splits:
        """Refuse: there is nothing to train on.

        Raises:
            InputError: always.
        """
        raise InputError(f"{self.path} is a folder of images to predict: give a data set with labels")

    def setup(self, stage: str | None = None) -> None:
        """List the images.

        Raises:
            InputError: there is no image, or anything else than prediction is wanted.
        """
        if stage not in (None, "predict"):
            self.load()
        if self._files is None:
            self._files = ImageFiles(self.path, self.image_size, self.resize, self.in_channels)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """In the order of their names."""
        assert self._files is not None
        return self._loader(DataLoader, self._files, sampler=EvaluationSampler(self._files, *self._place()))


class ImageFiles(Dataset[Batch]):
    """The image files of a folder, decoded a batch at a time.

    Args:
        folder: where they are, also in folders below.
        size: height and width of the images.
        resize: how they come to that size.
        in_channels: 3, or 1 for grey ones.

    Attributes:
        names: their paths in the folder, sorted.

    Raises:
        InputError: there is no such folder, or no image in it.
    """

    def __init__(self, folder: Path, size: tuple[int, int], resize: Resize, in_channels: int) -> None:
        self.names = image_files(folder)
        if not self.names:
            raise InputError(f"there is no image in {folder}: give another folder")
        self._folder = folder
        self._size = size
        self._resize = resize
        self._in_channels = in_channels

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Decode a batch, as :meth:`BatchDataset.__getitems__` gives it; no label is known.

        Raises:
            InputError: a file can't be read or decoded.
        """
        images = torch.from_numpy(np.stack([self._decode(self.names[index]) for index in indices]))
        if self._in_channels == 1:
            images = TF.rgb_to_grayscale(images)
        index = torch.as_tensor(indices)
        return {"image": images, "label": torch.full_like(index, -1), "index": index}

    def _decode(self, name: str) -> np.ndarray:
        path = self._folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} can't be read ({error.strerror}): make it readable") from error
        return decode(content, self._size, self._resize, str(path))
