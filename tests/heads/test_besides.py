"""What the monitor measures beside the weights of each image: position alone, and pasted borders."""

import csv
import math

import pytest
import torch
from torch import nn

from tests import blobs
from tests.heads.toy import WIDTH, ToyAttention
from vitlocal.data import NPZ
from vitlocal.errors import InputError
from vitlocal.geometry import Sequence
from vitlocal.heads import find_attention, head_statistics, observe
from vitlocal.heads.border import BorderMass, mixed_images, pasted_share
from vitlocal.heads.collector import HeadCollector
from vitlocal.models import ClippedSoftmax, Gated, VisionTransformer
from vitlocal.runs import open_run
from vitlocal.runs.trained import trained_subject

KINDS = {
    "softmax": {},
    "clipped": {"attention": ClippedSoftmax},
    "gated": {"attention": Gated},
    "no bias": {"init": "lee", "global_pool": "avg"},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@torch.no_grad()
def test_position_alone_by_loops_over_images_and_heads(kind):
    torch.manual_seed(0)
    network = VisionTransformer(img_size=(12, 8), embed_dim=24, depth=2, num_heads=3, **kind).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    images = torch.randn(7, 3, 12, 8)
    collector = HeadCollector(network, torch.device("cpu"))
    for batch in images.split(3):
        with collector.batch(batch):
            network(batch)
    for (_, attention), found in zip(find_attention(network), collector.compute(), strict=True):
        seen = []
        hook = attention.qkv.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output[0]))
        for image in images:
            network(image[None])
        hook.remove()
        for head in range(3):
            columns = slice(8 * head, 8 * head + 8)
            query = sum(qkv[:, :24][:, columns] for qkv in seen) / 7
            key = sum(qkv[:, 24:48][:, columns] for qkv in seen) / 7
            rows = []
            for i in range(len(query)):
                scores = [float(query[i] @ key[j]) / math.sqrt(8) for j in range(len(key))]
                parts = [math.exp(score - max(scores)) for score in scores]
                row = [part / sum(parts) for part in parts]
                if kind.get("attention") is ClippedSoftmax:
                    gamma = -0.5 / len(key)
                    row = [min(max((1 - gamma) * a + gamma, 0), 1) for a in row]
                rows.append(row)
            expected = head_statistics(torch.tensor(rows)[None, None], network.geometry)
            for name in ("mad", "self_mass"):
                assert found[f"position_{name}"][head] == pytest.approx(expected[name].item(), rel=1e-4)


def test_a_network_whose_positions_say_it_all_is_position_only():
    """Without anything but positions, attention is position-only attention."""
    torch.manual_seed(0)
    network = VisionTransformer(img_size=(16, 16), embed_dim=24, depth=1, num_heads=3, init="lee").eval()
    with torch.no_grad():
        network.patch_embed.proj.weight.zero_()
        collector = HeadCollector(network, torch.device("cpu"))
        images = torch.randn(4, 3, 16, 16)
        with collector.batch(images):
            network(images)
    (layer,) = collector.compute()
    assert layer["position_mad"] == pytest.approx(layer["mad"], rel=1e-5)
    assert layer["position_self_mass"] == pytest.approx(layer["self_mass"], rel=1e-5)
    assert layer["mad"] != pytest.approx([0.47] * 3, abs=0.005)  # not uniform attention


@pytest.fixture
def run(tmp_path, npz_file):
    def fit(name, *words):
        words = ("--model.network.patch_size=1", "--trainer.max_epochs=1", *words)
        return blobs.fit(tmp_path / name, npz_file, *words)

    return fit


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_borders_are_those_of_the_first_validation_images_mixed(run, npz_file):
    folder = run("mixed", "--locality.mixed_images=10")
    rows = [row for row in table(folder / "heads.csv") if row["epoch"] == "1"]
    subject = trained_subject(open_run(folder / "checkpoints/last.ckpt"))
    data = NPZ(path=str(npz_file), batch_size=8)
    data.prepare_data()
    data.setup("validate")
    attention = find_attention(subject)
    metrics = [BorderMass(module.num_heads, subject.geometry) for _, module in attention]
    left = 10
    for number, batch in enumerate(data.val_dataloader()):
        images = batch["image"][:left]
        left -= len(images)
        if len(images):
            mixed, mask = mixed_images(images, 0, 0, number)
            weights = []
            with torch.no_grad(), observe(subject, [weights.append] * len(attention)):
                subject(mixed)
            for metric, each in zip(metrics, weights, strict=True):
                metric.update(each, pasted_share(mask, subject.geometry))
    found = [metric.compute() for metric in metrics]
    assert left == 0 and len(rows) == sum(module.num_heads for _, module in attention)
    for row in rows:
        for name, values in found[int(row["layer"])].items():
            assert float(row[name]) == pytest.approx(values[int(row["head"])].item(), abs=1e-4), name


def test_borders_change_nothing_else(run):
    plain, mixed = run("plain"), run("mixed", "--locality.mixed_images=10")
    assert table(plain / "metrics.csv") == table(mixed / "metrics.csv")
    without = [list(row.items()) for row in table(plain / "heads.csv")]
    with_borders = [list(row.items()) for row in table(mixed / "heads.csv")]
    assert [row[: len(without[0])] for row in with_borders] == without


def test_fewer_than_no_mixed_images_are_refused(run, capsys):
    with pytest.raises(SystemExit):
        run("wrong", "--locality.mixed_images=-1")
    assert "locality.mixed_images is -1: it must not be negative" in capsys.readouterr().err


class Causal(nn.Module):
    """Tokens (B, N) in a row, each of which sees those before it; ``attention`` is all there is."""

    def __init__(self, attention):
        super().__init__()
        self.geometry, self.attention = Sequence(7, causal=True), attention

    def forward(self, tokens):
        return self.attention(nn.functional.one_hot(tokens, WIDTH).float())


def test_a_causal_network_is_observed_over_the_past():
    torch.manual_seed(0)
    attention = ToyAttention()
    full, past = attention.probabilities, torch.ones(7, 7).tril()
    attention.probabilities = lambda x: (full(x) * past) / (full(x) * past).sum(-1, keepdim=True)
    network, tokens = Causal(attention), torch.randint(0, 8, (3, 7))
    collector = HeadCollector(network, torch.device("cpu"), maps=1)
    with torch.no_grad(), collector.batch(tokens):
        network(tokens)
    (layer,) = collector.compute()
    with torch.no_grad():
        weights = attention.probabilities(nn.functional.one_hot(tokens, WIDTH).float()).double()
    places = torch.arange(7)
    mad = (weights * (places[:, None] - places)).sum(-1).mean((0, 2))
    rows = weights[:, :, 1:]  # the first token has no choice
    entropy = -(torch.xlogy(rows, rows).sum(-1) / torch.arange(2, 8).log()).mean((0, 2))
    assert layer["mad"] == pytest.approx(mad.tolist(), rel=1e-5)
    assert layer["entropy"] == pytest.approx(entropy.tolist(), rel=1e-5)
    assert collector.uniform["mad"] == pytest.approx(6 / 4)  # the mean of i / 2 for i up to 6
    assert not collector.maps  # nothing to draw on


def test_boxes_need_a_grid():
    with pytest.raises(InputError, match="tokens of Causal are on no grid"):
        HeadCollector(Causal(ToyAttention()), torch.device("cpu"), mixed=3)
