"""The decoder: sizes, positions, causality, and generation with and without a cache."""

import math

import pytest
import torch

from vitlocal.errors import InputError
from vitlocal.geometry import Sequence
from vitlocal.models import Decoder, generate, make_network, network_settings
from vitlocal.models.decoder import MakeDecoder, sinusoidal_positions
from vitlocal.observing import find_attention, find_network


def made(length=24, **options):
    torch.manual_seed(0)
    given = {"vocab_size": 11, "max_length": length, "embed_dim": 16, "depth": 2, "num_heads": 2} | options
    return Decoder(**given).eval()


def prompts(lengths, seed=0):
    tokens = torch.randint(1, 11, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(seed))
    return tokens, torch.tensor(lengths)


def test_it_has_the_papers_parameters():
    decoder = Decoder(vocab_size=21, max_length=43)
    layer = 4 * 256**2 + 4 * 256 + 2 * 4 * 256**2 + 4 * 256 + 256 + 4 * 256
    around = 21 * 256 + 2 * 256 + 2 * 256 + 256 * 21 + 21
    assert sum(each.numel() for each in decoder.parameters()) == 3 * layer + around
    assert 2.3e6 < 3 * layer + around < 2.5e6
    assert "positions" not in decoder.state_dict()


def test_positions_are_those_of_the_formula():
    found = sinusoidal_positions(7, 6)
    for p in range(7):
        for i in range(3):
            angle = p / 10000 ** (2 * i / 6)
            assert found[p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert found[p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize("pos_embed", ["sinusoidal", "alibi"])
@torch.no_grad()
def test_later_tokens_and_padding_change_nothing_before_them(pos_embed):
    decoder, (tokens, _) = made(pos_embed=pos_embed), prompts([20, 20])
    whole = decoder(tokens)
    changed = tokens.clone()
    changed[:, 12:] = 0
    torch.testing.assert_close(decoder(changed)[:, :12], whole[:, :12])
    torch.testing.assert_close(decoder(tokens[:, :12]), whole[:, :12])
    assert not torch.allclose(decoder(changed)[:, 12], whole[:, 12])


@torch.no_grad()
def test_it_knows_the_order_of_what_came_before():
    tokens = torch.tensor([[1, 2, 3, 4], [2, 1, 3, 4]])
    for pos_embed in ("sinusoidal", "alibi"):
        first, second = made(pos_embed=pos_embed)(tokens)[:, -1]
        assert not torch.allclose(first, second, atol=1e-4), pos_embed


def test_it_is_a_network_that_can_be_observed():
    decoder = made()
    assert find_network(decoder) is decoder and isinstance(decoder.geometry, Sequence)
    assert decoder.geometry.causal and decoder.geometry.num_tokens == 24
    assert len(find_attention(decoder)) == 2


@pytest.mark.parametrize("pos_embed", ["sinusoidal", "alibi"])
def test_generation_with_a_cache_is_the_one_without(pos_embed):
    decoder, (tokens, lengths) = made(pos_embed=pos_embed), prompts([3, 9, 5, 1])
    with_cache, without = (generate(decoder, tokens, lengths, 2, 24, cached=each) for each in (True, False))
    assert torch.equal(with_cache, without)
    # Each is what the network finds likeliest after it, alone and one token after the other.
    for row, prompt, length in zip(with_cache, tokens, lengths.tolist(), strict=True):
        expected = prompt[:length].tolist()
        while len(expected) < 24 and (len(expected) == length or expected[-1] != 2):
            with torch.no_grad():
                expected.append(int(decoder(torch.tensor([expected]))[0, -1].argmax()))
        assert row.tolist() == expected + [0] * (24 - len(expected))


def test_sequences_end_at_different_places():
    """A network that says 2 after three tokens, whatever they are, so that ends can be told."""

    class Ending(Decoder):
        def forward(self, tokens):
            logits = torch.zeros(*tokens.shape, 11)
            logits[..., 7 if tokens.shape[1] < 6 else 2] = 1
            return logits

    decoder = Ending(11, 24, 16, 2, 2).eval()
    tokens, lengths = prompts([2, 7])
    found = generate(decoder, tokens, lengths, 2, 12, cached=False)
    assert found[0].tolist() == [*tokens[0, :2].tolist(), 7, 7, 7, 7, 2, 0, 0, 0, 0, 0]
    assert found[1].tolist() == [*tokens[1].tolist(), 2, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"embed_dim": 15}, "embed_dim is 15 and num_heads is 2"),
        ({"embed_dim": 7, "num_heads": 7}, "must be even"),
        ({"depth": 0}, "depth is 0: it must be from 1"),
        ({"drop_rate": 1.0}, "drop_rate is 1.0"),
        ({"mlp_ratio": 0.0}, "mlp_ratio is 0.0"),
        ({"pos_embed": "learned"}, "pos_embed is 'learned': it must be one of sinusoidal, alibi"),
    ],
)
def test_wrong_sizes(options, says):
    with pytest.raises(InputError, match=says):
        made(**options)


def test_too_long_a_sequence_is_refused():
    with pytest.raises(InputError, match="25 tokens, and the network positions for 24"):
        made()(torch.ones(1, 25, dtype=torch.int64))
    assert made(pos_embed="alibi")(torch.ones(1, 25, dtype=torch.int64)).shape == (1, 25, 11)
    with pytest.raises(InputError, match="a problem has 9 tokens, and a sequence has 9 at most"):
        generate(made(), *prompts([9, 3]), 2, 9)


def test_settings_make_it():
    settings = network_settings({"embed_dim": 32, "num_heads": 2}, MakeDecoder)
    assert settings["class_path"].endswith("Decoder")
    decoder = make_network(settings, MakeDecoder, vocab_size=5, max_length=9)
    assert isinstance(decoder, Decoder) and decoder.head.out_features == 5
    assert decoder.embed.embedding_dim == 32 and decoder.geometry.num_tokens == 9
