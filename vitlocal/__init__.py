"""Vision Transformers trained from scratch under named protocols, head by head."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers and editors, the names of the table below
    from vitlocal.activations import IdleHeads as IdleHeads
    from vitlocal.activations import OutlierMonitor as OutlierMonitor
    from vitlocal.activations import OutputOutliers as OutputOutliers
    from vitlocal.data import CIFAR10 as CIFAR10
    from vitlocal.data import CIFAR100 as CIFAR100
    from vitlocal.data import LIS as LIS
    from vitlocal.data import NPZ as NPZ
    from vitlocal.data import Arithmetic as Arithmetic
    from vitlocal.data import BlockModel as BlockModel
    from vitlocal.data import Digits as Digits
    from vitlocal.data import EditDistance as EditDistance
    from vitlocal.data import Equations as Equations
    from vitlocal.data import GraphDataModule as GraphDataModule
    from vitlocal.data import ImageDataModule as ImageDataModule
    from vitlocal.data import ImageFolder as ImageFolder
    from vitlocal.data import Karate as Karate
    from vitlocal.data import PyG as PyG
    from vitlocal.data import SequenceDataModule as SequenceDataModule
    from vitlocal.data import TinyImageNet as TinyImageNet
    from vitlocal.errors import InputError as InputError
    from vitlocal.geometry import Geometry as Geometry
    from vitlocal.geometry import Graph as Graph
    from vitlocal.geometry import Grid as Grid
    from vitlocal.geometry import Sequence as Sequence
    from vitlocal.heads import ClassTokenMass as ClassTokenMass
    from vitlocal.heads import HeadStatistics as HeadStatistics
    from vitlocal.heads import ImageMean as ImageMean
    from vitlocal.heads import LocalityMonitor as LocalityMonitor
    from vitlocal.heads import MeanAttentionDistance as MeanAttentionDistance
    from vitlocal.heads import MeanAttentionDistanceWithoutSelf as MeanAttentionDistanceWithoutSelf
    from vitlocal.heads import NormalizedEntropy as NormalizedEntropy
    from vitlocal.heads import RawMeanAttentionDistance as RawMeanAttentionDistance
    from vitlocal.heads import SelfMass as SelfMass
    from vitlocal.models import GAT as GAT
    from vitlocal.models import GCN as GCN
    from vitlocal.models import STAGNN as STAGNN
    from vitlocal.models import Attention as Attention
    from vitlocal.models import ClippedSoftmax as ClippedSoftmax
    from vitlocal.models import Decoder as Decoder
    from vitlocal.models import Gated as Gated
    from vitlocal.models import Softmax as Softmax
    from vitlocal.models import Subtree as Subtree
    from vitlocal.models import VisionTransformer as VisionTransformer
    from vitlocal.protocol import Augmentation as Augmentation
    from vitlocal.protocol import AutoAugment as AutoAugment
    from vitlocal.protocol import ColorJitter as ColorJitter
    from vitlocal.protocol import CropFlip as CropFlip
    from vitlocal.protocol import CutMix as CutMix
    from vitlocal.protocol import Cutout as Cutout
    from vitlocal.protocol import LabelSmoothing as LabelSmoothing
    from vitlocal.protocol import MixUp as MixUp
    from vitlocal.protocol import Protocol as Protocol
    from vitlocal.runs import Distillation as Distillation
    from vitlocal.runs import Run as Run
    from vitlocal.runs import open_run as open_run
    from vitlocal.tasks import Classification as Classification
    from vitlocal.tasks import NodeClassification as NodeClassification
    from vitlocal.tasks import SequenceModeling as SequenceModeling

__version__ = "0.1.0"

# Imported when they are asked for, so that neither --help nor ``import vitlocal`` waits for PyTorch.
_NAMES = {
    "activations": ("IdleHeads", "OutlierMonitor", "OutputOutliers"),
    "data": (
        "CIFAR10",
        "CIFAR100",
        "NPZ",
        "BlockModel",
        "Digits",
        "Arithmetic",
        "EditDistance",
        "Equations",
        "LIS",
        "SequenceDataModule",
        "GraphDataModule",
        "ImageDataModule",
        "ImageFolder",
        "Karate",
        "PyG",
        "TinyImageNet",
    ),
    "errors": ("InputError",),
    "geometry": ("Geometry", "Graph", "Grid", "Sequence"),
    "heads": (
        "ClassTokenMass",
        "HeadStatistics",
        "ImageMean",
        "LocalityMonitor",
        "MeanAttentionDistance",
        "MeanAttentionDistanceWithoutSelf",
        "NormalizedEntropy",
        "RawMeanAttentionDistance",
        "SelfMass",
    ),
    "models": (
        "Decoder",
        "GAT",
        "GCN",
        "STAGNN",
        "Attention",
        "ClippedSoftmax",
        "Gated",
        "Softmax",
        "Subtree",
        "VisionTransformer",
    ),
    "protocol": (
        "Augmentation",
        "AutoAugment",
        "ColorJitter",
        "CropFlip",
        "CutMix",
        "Cutout",
        "LabelSmoothing",
        "MixUp",
        "Protocol",
    ),
    "runs": ("Distillation", "Run", "open_run"),
    "tasks": ("Classification", "NodeClassification", "SequenceModeling"),
}
ROOMS = {name: room for room, names in _NAMES.items() for name in names}
__all__ = sorted(ROOMS)

if not TYPE_CHECKING:  # or type checkers would take any name

    def __getattr__(name):
        if name not in ROOMS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
