"""Folders of images, one folder a class."""

from pathlib import Path
from typing import Any, ClassVar, get_args

from torchvision.datasets.folder import IMG_EXTENSIONS

from vitlocal.data.archive import Archive
from vitlocal.data.base import ImageDataModule
from vitlocal.data.cache import Listing, decoded_images, statistics_file
from vitlocal.data.dataset import Splits
from vitlocal.data.decode import Resize
from vitlocal.data.listing import say_what_is_left_out
from vitlocal.errors import InputError

SPLITS = ("train/", "val/", "test/", "predict/")


class ImageFolder(ImageDataModule):
    """Images as ``train/CLASS/*.jpg`` and ``val/CLASS/*.jpg``, of any size.

    The files are those of torchvision's ImageFolder: JPEG, PNG, PPM, BMP, PGM, TIFF and WebP.
    ``test/CLASS/`` is optional (without it, the images of ``val`` are the test images), and so is
    ``predict/``, images without labels. The classes are the folders of ``train``, sorted. Other files, and
    hidden ones, are left out. The images are made RGB images of one size once, into a folder beside ``path``:
    upright by their EXIF data, transparency over white.

    Args:
        path: The folder that holds ``train`` and ``val``.
        image_size: Pixels a side, or height and width.
        resize: How an image comes to that shape: ``crop`` resizes it to cover the shape and cuts the centre
            out, ``pad`` shows all of it between black bars, ``squash`` stretches it.
        **kwargs: Arguments common to all data sets.

    Raises:
        InputError: ``image_size`` is below 1.
    """

    photometric: ClassVar[dict[str, Any]] = {
        "class_path": "vitlocal.protocol.AutoAugment",
        "init_args": {"policy": "imagenet"},
    }

    def __init__(
        self, path: str, image_size: int | tuple[int, int] = 64, resize: Resize = "crop", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if min(height, width) < 1:
            raise InputError(f"image_size={image_size}: give at least 1 pixel a side")
        if resize not in get_args(Resize):
            raise InputError(f"resize={resize}: give one of {', '.join(get_args(Resize))}")
        self.path = Path(path).expanduser().absolute()
        self.name = self.path.name
        self.size = (height, width)
        self.resize = resize

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
            read = [file for listing in listings.values() for file in listing.files]
            names = (name for name in archive.names if name.startswith(SPLITS))
            say_what_is_left_out(self.path, names, read, of_class=True)
            images = {
                split: decoded_images(archive, listing, split, self.size, self.resize)
                for split, listing in listings.items()
            }
            return Splits(
                source=str(self.path),
                class_names=tuple(classes),
                statistics_file=statistics_file(archive, listings["train"], self.size, self.resize),
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
