"""What a training protocol is made of: augmentations of whole uint8 batches, as Lightning callbacks."""

from vitlocal.protocol.auto_augment import AutoAugment
from vitlocal.protocol.base import Augmentation, generator_for
from vitlocal.protocol.color_jitter import ColorJitter
from vitlocal.protocol.crop_flip import CropFlip
from vitlocal.protocol.label_smoothing import LabelSmoothing
from vitlocal.protocol.mixing import CutMix, Cutout, Mixing, MixUp
from vitlocal.protocol.protocol import Protocol

__all__ = [
    "Augmentation",
    "AutoAugment",
    "ColorJitter",
    "CropFlip",
    "CutMix",
    "Cutout",
    "LabelSmoothing",
    "MixUp",
    "Mixing",
    "Protocol",
    "generator_for",
]
