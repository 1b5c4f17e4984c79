"""Plain networks: the Vision Transformer and its attention. Nothing here knows of Lightning."""

from vitlocal.models.attention import Attention
from vitlocal.models.vit import VisionTransformer

__all__ = ["Attention", "VisionTransformer"]
