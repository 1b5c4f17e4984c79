"""Data sets: one LightningDataModule each, on one base."""

from vitlocal.data.base import ImageDataModule
from vitlocal.data.cifar import CIFAR10, CIFAR100
from vitlocal.data.dataset import BatchDataset, Images, Splits
from vitlocal.data.decode import Resize
from vitlocal.data.digits import Digits
from vitlocal.data.image_folder import ImageFolder
from vitlocal.data.npz import NPZ
from vitlocal.data.tiny_imagenet import TinyImageNet
from vitlocal.data.unlabelled import UnlabelledImages

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "NPZ",
    "BatchDataset",
    "Digits",
    "ImageDataModule",
    "ImageFolder",
    "Images",
    "Resize",
    "Splits",
    "TinyImageNet",
    "UnlabelledImages",
]
