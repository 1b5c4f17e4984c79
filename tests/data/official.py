"""Tiny archives in the layouts of the official ones, and the facts about them."""

import hashlib
import io
import pickle
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from vitlocal.data.download import RemoteFile


@dataclass
class Cifar:
    """An archive as CIFAR's.

    Attributes:
        archive: its path.
        parts: content of each batch file.
        reader: attributes to set on torchvision's class so that it takes the archive for the official one.
        size: the module's ``archive_size``.
    """

    archive: Path
    parts: dict
    reader: dict = field(repr=False)
    size: int


def add_member(file, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    file.addfile(member, io.BytesIO(content))


def cifar(reader, folder, members=(), changes=None):
    """Make an archive of random images.

    Args:
        reader: torchvision's class.
        folder: where to put the archive.
        members: further members, TarInfos without content.
        changes: contents of files to replace after their MD5s are taken.
    """
    rng = np.random.default_rng(0)
    classes = 10 if reader.base_folder == "cifar-10-batches-py" else 100
    key = "labels" if classes == 10 else "fine_labels"
    names = [name for name, _ in [*reader.train_list, *reader.test_list]]
    parts = {
        name: {
            "data": rng.integers(0, 256, (classes, 3072), dtype=np.uint8),
            key: list(range(classes)),
        }
        for name in names
    }
    class_names = [f"class {index}" for index in range(classes)]
    files = {name: pickle.dumps(part) for name, part in parts.items()}
    files[reader.meta["filename"]] = pickle.dumps({reader.meta["key"]: class_names})
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    archive = folder / reader.filename
    with tarfile.open(archive, "w:gz") as file:
        for name, content in (files | (changes or {})).items():
            add_member(file, f"{reader.base_folder}/{name}", content)
        for member in members:
            file.addfile(member)
    content = archive.read_bytes()
    facts = {
        "train_list": [[name, md5[name]] for name, _ in reader.train_list],
        "test_list": [[name, md5[name]] for name, _ in reader.test_list],
        "meta": {**reader.meta, "md5": md5[reader.meta["filename"]]},
        "tgz_md5": hashlib.md5(content).hexdigest(),
        "url": "http://127.0.0.1:9/archive.tar.gz",  # nobody listens there
    }
    return Cifar(archive, parts, facts, len(content))


def jpeg(seed, mode="RGB"):
    shape = (64, 64, 3) if mode == "RGB" else (64, 64)
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def tiny_imagenet(path, images_a_class=4):
    """Make a small zip in the layout of Tiny-ImageNet and return what is to know about it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny-imagenet-200/wnids.txt", "n01\nn02\n")
        archive.writestr("tiny-imagenet-200/val/val_annotations.txt", "v.JPEG\tn01\t0\t0\t1\t1\n")
        archive.writestr("tiny-imagenet-200/val/images/v.JPEG", jpeg(0))
        for seed in range(2 * images_a_class):
            wnid = "n01" if seed % 2 else "n02"
            archive.writestr(f"tiny-imagenet-200/train/{wnid}/images/{seed}.JPEG", jpeg(seed))
    content = path.read_bytes()
    return RemoteFile("tiny-imagenet-200.zip", len(content), hashlib.md5(content).hexdigest(), ())
