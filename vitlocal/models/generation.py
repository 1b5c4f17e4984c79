"""Greedy generation, a batch of prompts of any lengths at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from vitlocal.errors import InputError
from vitlocal.models.decoder import Decoder

PADDING = 0


@torch.no_grad()
def generate(
    network: Decoder, prompts: Tensor, lengths: Tensor, end: int, length: int, cached: bool = True
) -> Tensor:
    """Put after each prompt the likeliest token, again and again.

    All sequences are aligned at their beginnings: while the shorter ones are continued, the longer prompts
    are still read.

    Args:
        network: in evaluation mode.
        prompts: int64 (B, P); what is beyond a prompt's length does not count.
        lengths: int64 (B,), of the prompts, each at least 1.
        end: the token after which a sequence ends.
        length: most tokens in a sequence, prompt included.
        cached: keep keys and values; else everything is computed again for each token, to the same end.

    Returns:
        int64 (B, ``length``): the prompts and what follows, 0 after the end.

    Raises:
        InputError: a prompt leaves no room.
    """
    shortest, longest = int(lengths.min()), int(lengths.max())
    if longest >= length:
        raise InputError(f"a problem has {longest} tokens, and a sequence has {length} at most: shorten it")
    found = prompts.new_full((len(prompts), length), PADDING)
    places = torch.arange(length, device=prompts.device)
    given = places[:longest] < lengths[:, None]
    found[:, :longest] = prompts[:, :longest].where(given, PADDING)
    following = _cached(network, len(prompts), length) if cached else _uncached(network)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device)
    for place in range(shortest, length):
        token = following(found[:, :place])
        own = place < lengths
        token = found[:, place].where(own, token.masked_fill(ended, PADDING))
        found[:, place] = token
        ended |= ~own & (token == end)
        if bool(ended.all()):
            break
    return found


def _cached(network: Decoder, batch: int, length: int) -> Callable[[Tensor], Tensor]:
    cache, known = network.new_cache(batch, length), 0

    def following(tokens: Tensor) -> Tensor:
        nonlocal known
        logits = network.step(tokens[:, known:], cache, known)
        known = tokens.shape[1]
        return logits[:, -1].argmax(-1)

    return following


def _uncached(network: Decoder) -> Callable[[Tensor], Tensor]:
    return lambda tokens: network(tokens)[:, -1].argmax(-1)
