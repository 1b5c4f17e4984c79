"""Where tokens are, and which of them a token may see."""

from vitlocal.geometry.base import ClassToken, Geometry, Unit
from vitlocal.geometry.graph import Graph
from vitlocal.geometry.grid import Grid
from vitlocal.geometry.sequence import Sequence

__all__ = ["ClassToken", "Geometry", "Graph", "Grid", "Sequence", "Unit"]
