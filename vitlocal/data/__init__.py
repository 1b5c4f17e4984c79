"""Data sets: one LightningDataModule each, on one base."""

from vitlocal.data.base import ImageDataModule
from vitlocal.data.cifar import CIFAR10, CIFAR100
from vitlocal.data.dataset import BatchDataset, Images, Splits
from vitlocal.data.decode import Resize
from vitlocal.data.digits import Digits
from vitlocal.data.graphs import BlockModel, GraphDataModule, Karate, LabelledGraph, PyG
from vitlocal.data.image_folder import ImageFolder
from vitlocal.data.module import DataModule
from vitlocal.data.npz import NPZ
from vitlocal.data.sequences import LIS, Arithmetic, EditDistance, Equations, SequenceDataModule
from vitlocal.data.tiny_imagenet import TinyImageNet
from vitlocal.data.unlabelled import UnlabelledImages

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "LIS",
    "NPZ",
    "Arithmetic",
    "BatchDataset",
    "BlockModel",
    "DataModule",
    "Digits",
    "EditDistance",
    "Equations",
    "GraphDataModule",
    "ImageDataModule",
    "ImageFolder",
    "Images",
    "Karate",
    "LabelledGraph",
    "PyG",
    "Resize",
    "SequenceDataModule",
    "Splits",
    "TinyImageNet",
    "UnlabelledImages",
]
