"""What the heads of a trained ViT do, whichever library it is from: the command ``inspect``."""
