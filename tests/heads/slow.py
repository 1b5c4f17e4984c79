"""Every statistic again, slowly."""

import math

import torch

from vitlocal.heads import functional as heads


def slow_statistics(attention, geometry, apart, near, sees):
    """Every statistic of one image and head, (N, N), by loops over Python floats.

    Of two places, counted from 0, ``apart`` says the distance, ``near`` whether they are at most a step
    apart, and ``sees`` whether the one sees the other.
    """
    prefix, keep = geometry.num_prefix_tokens, geometry.class_token == "keep"
    rows = attention.double().tolist()
    found = {name: [] for name in heads.STATISTICS}
    tiny = torch.finfo(attention.dtype).tiny

    def logit(part, rest):
        return math.log(max(part, tiny)) - math.log(max(rest, tiny))

    for i in range(len(rows) - prefix):
        seen = [j for j in range(len(rows) - prefix) if sees(i, j)]
        if not seen:
            continue
        before = rows[prefix + i][:prefix]
        weights = {j: rows[prefix + i][prefix + j] for j in seen}
        keys = (before if keep else []) + list(weights.values())
        own = weights[i]
        rest = [a for j, a in weights.items() if j != i] + (before if keep else [])
        weight, others = sum(keys), sum(rest)
        reach = sum(a * apart(i, j) for j, a in weights.items())
        window = sum(a for j, a in weights.items() if near(i, j))
        found["mad_raw"].append(reach)
        if sum(before) + sum(weights.values()) and prefix:
            odds = logit(sum(before), sum(weights.values()))
            found["class_log_odds"].append(odds - math.log(prefix / len(seen)))
        found["class_mass"].append(sum(before))
        if weight:
            found["mad"].append(reach / weight)
            found["self_mass"].append(own / weight)
            found["window_mass"].append(window / weight)
        if weight and len(keys) > 1:
            shares = [a / weight for a in keys if a]
            found["self_log_odds"].append(logit(own, others) + math.log(len(keys) - 1))
            found["entropy"].append(-sum(a * math.log(a) for a in shares) / math.log(len(keys)))
        if others:
            found["mad_without_self"].append(reach / others)
    return {name: sum(values) / max(1, len(values)) for name, values in found.items()}
