import pytest
import torch

from tests.protocol.helpers import make_batch
from vitlocal.errors import InputError
from vitlocal.protocol import LabelSmoothing


def test_one_hot_becomes_the_textbook_target():
    batch = make_batch(5, num_classes=5)
    LabelSmoothing(0.1).apply(batch, torch.Generator())
    torch.testing.assert_close(batch["target"], torch.full((5, 5), 0.02) + 0.9 * torch.eye(5))


def test_cross_entropy_is_torchs_label_smoothing():
    batch = make_batch(8)
    logits = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cross_entropy(logits, batch["label"], label_smoothing=0.3)
    LabelSmoothing(0.3).apply(batch, torch.Generator())
    torch.testing.assert_close(torch.nn.functional.cross_entropy(logits, batch["target"]), expected)


@pytest.mark.parametrize("epsilon", [-0.1, 1.0, float("nan")])
def test_epsilon_out_of_range(epsilon):
    with pytest.raises(InputError, match=f"LabelSmoothing: epsilon={epsilon} .* from 0 to below 1"):
        LabelSmoothing(epsilon)
