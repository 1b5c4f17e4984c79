"""How a network is observed while it runs: which of its modules, which images, when, and where it goes."""

from vitlocal.observing.hooks import find_attention, find_network, observe
from vitlocal.observing.metrics import ImageMean
from vitlocal.observing.monitor import NetworkMonitor

__all__ = ["ImageMean", "NetworkMonitor", "find_attention", "find_network", "observe"]
