"""Folders of images, one folder a class."""

from pathlib import Path
from typing import Any, ClassVar

from torchvision.datasets.folder import IMG_EXTENSIONS

from vitlocal.data.archive import Archive
from vitlocal.data.base import ImageDataModule
from vitlocal.data.cache import Listing, decoded_images, statistics_file
from vitlocal.data.dataset import Splits
from vitlocal.errors import InputError


class ImageFolder(ImageDataModule):
    """Images as ``train/CLASS/*.jpg`` and ``val/CLASS/*.jpg``, of any size.

    The files are those of torchvision's ImageFolder: JPEG, PNG, PPM, BMP, PGM, TIFF and WebP.
    ``test/CLASS/`` is optional (without it, the images of ``val`` are the test images), and so is
    ``predict/``, images without labels. The classes are the folders of ``train``, sorted. The images are
    made square RGB images once, into a folder beside ``path``.

    Args:
        path: The folder that holds ``train`` and ``val``.
        image_size: Pixels a side: the shorter side is resized to it and the centre cut out.
        **kwargs: Arguments common to all data sets.

    Raises:
        InputError: ``image_size`` is below 1.
    """

    photometric: ClassVar[dict[str, Any]] = {
        "class_path": "vitlocal.protocol.AutoAugment",
        "init_args": {"policy": "imagenet"},
    }

    def __init__(self, path: str, image_size: int = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if image_size < 1:
            raise InputError(f"image_size={image_size}: give at least 1 pixel")
        self.path = Path(path).expanduser().absolute()
        self.name = self.path.name
        self.side = image_size

    def load(self) -> Splits:
        """List the images and read them, decoded, from the cache.

        Raises:
            InputError: a folder is missing, empty or not a class, or an image can't be decoded.
        """
        if not (self.path / "train").is_dir():
            raise InputError(
                f"there is no folder {self.path / 'train'}: give path a folder with train and val"
            )
        classes = _class_folders(self.path / "train")
        with Archive(self.path) as archive:
            listings = {
                split: self._labelled(archive, split, classes)
                for split in ("train", "val", "test")
                if (self.path / split).is_dir()
            }
            if unlabelled := archive.images("predict/", IMG_EXTENSIONS):
                listings["predict"] = Listing(unlabelled, [-1] * len(unlabelled))
            images = {
                split: decoded_images(archive, listing, split, self.side)
                for split, listing in listings.items()
            }
            return Splits(
                source=str(self.path),
                class_names=tuple(classes),
                statistics_file=statistics_file(archive, listings["train"], self.side),
                **images,
            )

    def _labelled(self, archive: Archive, split: str, classes: list[str]) -> Listing:
        files: list[str] = []
        labels: list[int] = []
        for name in _class_folders(self.path / split):
            folder = f"{split}/{name}/"
            if name not in classes:
                raise InputError(
                    f"{self.path / folder} is no class of {self.path / 'train'}: rename or remove it"
                )
            found = archive.images(folder, IMG_EXTENSIONS)
            if not found:
                raise InputError(f"{self.path / folder} holds no image: put some there, or remove it")
            files += found
            labels += [classes.index(name)] * len(found)
        return Listing(files, labels)


def _class_folders(folder: Path) -> list[str]:
    try:
        items = [item for item in folder.iterdir() if item.is_dir() and not item.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder} can't be read ({error}): allow it, or mend the disk") from error
    names = sorted(item.name for item in items)
    if not names:
        raise InputError(f"{folder} holds no folders: put the images into one folder a class")
    return names
