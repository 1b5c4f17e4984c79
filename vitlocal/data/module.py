"""What every data set is to the command line: a LightningDataModule with a name."""

from lightning.pytorch import LightningDataModule


class DataModule(LightningDataModule):
    """A data set: images in batches, or a graph as a whole."""

    name: str
    """Short, for the run's folder."""

    batch_size: int
    """Images a batch, on each device; 1 for a graph."""
