"""Vision Transformers trained from scratch under named protocols, head by head."""

__version__ = "0.1.0"
