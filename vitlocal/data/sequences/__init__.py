"""Problems whose answers take steps: generated sequences of tokens, direct or with the chain of steps."""

from vitlocal.data.sequences.arithmetic import Arithmetic
from vitlocal.data.sequences.base import SequenceDataModule, SequenceDataset
from vitlocal.data.sequences.edit_distance import EditDistance
from vitlocal.data.sequences.equations import Equations
from vitlocal.data.sequences.lis import LIS
from vitlocal.data.sequences.problems import Problems
from vitlocal.data.sequences.vocabulary import CLS, EOS, PAD, Vocabulary

__all__ = [
    "CLS",
    "EOS",
    "LIS",
    "PAD",
    "Arithmetic",
    "EditDistance",
    "Equations",
    "Problems",
    "SequenceDataModule",
    "SequenceDataset",
    "Vocabulary",
]
