"""The embedded graph."""

import torch

from vitlocal.data.graphs.base import GraphDataModule
from vitlocal.data.graphs.graph import LabelledGraph

# Of each member the friends of a higher number, counted from 0.
FRIENDS = """
1 2 3 4 5 6 7 8 10 11 12 13 17 19 21 31/2 3 7 13 17 19 21 30/3 7 8 9 13 27 28 32/7 12 13/6 10/6 10 16/16/
/30 32 33/33////33/32 33/32 33///32 33/33/32 33//32 33/25 27 29 32 33/25 27 31/31/29 33/33/31 33/32 33/
32 33/32 33/33/
"""

OFFICER = (9, 14, 15, 18, 20, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33)
"""The members who went with the officer when the club split; the others went with Mr. Hi."""


class Karate(GraphDataModule):
    """Zachary's karate club: 34 members, 78 friendships, and which of two clubs each joined after the split.

    W. W. Zachary, "An Information Flow Model for Conflict and Fission in Small Groups", Journal of
    Anthropological Research 33, 1977. Each member's feature is who they are, one of 34.
    """

    name = "karate"

    def load(self) -> LabelledGraph:
        """Make the graph."""
        friends = FRIENDS.replace("\n", "").split("/")
        pairs = [(member, int(other)) for member, others in enumerate(friends) for other in others.split()]
        labels = torch.zeros(34, dtype=torch.int64)
        labels[list(OFFICER)] = 1
        return LabelledGraph(
            "the embedded karate club", torch.tensor(pairs).T, torch.eye(34), labels, ("Mr. Hi", "Officer")
        )
