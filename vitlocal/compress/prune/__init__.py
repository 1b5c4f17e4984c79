"""Heads and MLP columns taken out of a trained network until it is as fast as is wanted (ZipLM)."""
