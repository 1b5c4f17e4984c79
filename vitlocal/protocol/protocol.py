"""A training protocol: which augmentations, in which order, under which name."""

from typing import Literal

from vitlocal.errors import InputError
from vitlocal.protocol.auto_augment import AutoAugment
from vitlocal.protocol.base import Augmentation
from vitlocal.protocol.color_jitter import ColorJitter
from vitlocal.protocol.crop_flip import CropFlip
from vitlocal.protocol.label_smoothing import LabelSmoothing
from vitlocal.protocol.mixing import CutMix


class Protocol:
    """The augmentations of a training protocol; null leaves one out.

    Alone, without arguments, it is the Baseline: crop and flip.

    Args:
        crop_flip: random crop and horizontal flip.
        photometric: AutoAugment or ColorJitter; ``auto``: the one that the data set asks for, which the
            command line puts in its place.
        mixing: CutMix, MixUp or Cutout.
        label_smoothing: softened targets.
    """

    def __init__(
        self,
        # jsonargparse reads this default from the signature; components keep no state, so it can be shared.
        crop_flip: CropFlip | None = CropFlip(),  # noqa: B008
        photometric: Augmentation | Literal["auto"] | None = None,
        mixing: Augmentation | None = None,
        label_smoothing: LabelSmoothing | None = None,
    ) -> None:
        self.crop_flip = crop_flip
        self.photometric = photometric
        self.mixing = mixing
        self.label_smoothing = label_smoothing

    def callbacks(self) -> list[Augmentation]:
        """Return the components that there are, in the order they are applied.

        Raises:
            InputError: the photometric one is still ``auto``.
        """
        if self.photometric == "auto":
            raise InputError("protocol.photometric is 'auto': outside the command line, give the component")
        found = []
        for place in ("crop_flip", "photometric", "mixing", "label_smoothing"):
            component: Augmentation | None = getattr(self, place)
            if component is not None:
                component.place = place
                found.append(component)
        return found

    @property
    def name(self) -> str:
        """A short name for folders: none, baseline, modern, or the components joined by "+"."""
        components = self.callbacks()
        if not components:
            return "none"
        if components == [self.crop_flip]:
            return "baseline"
        modern_parts = isinstance(self.photometric, AutoAugment | ColorJitter) and isinstance(
            self.mixing, CutMix
        )
        if len(components) == 4 and modern_parts:
            return "modern"
        return "+".join(type(component).__name__.lower() for component in components)
