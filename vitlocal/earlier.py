"""Settings as earlier releases wrote them: the network's were the model's own, under other names."""

from collections.abc import Mapping
from typing import Any

NETWORK = {
    "patch_size": "patch_size",
    "width": "embed_dim",
    "depth": "depth",
    "heads": "num_heads",
    "mlp_ratio": "mlp_ratio",
    "pool": "global_pool",
    "dropout": "drop_rate",
    "stochastic_depth": "drop_path_rate",
    "attention": "attention",
    "patch_norm": "patch_norm",
    "init": "init",
    "pos_embed": "pos_embed",
}
"""The network's argument for each of those that were the model's."""

ATTENTION = {
    "clip_gamma": "gamma",
    "clip_alpha": "alpha",
    "clip_zeta": "zeta",
    "gate": "gate",
    "gate_pi_init": "pi_init",
    "gate_hidden": "hidden",
}
"""The same for arguments of its attention."""

KINDS = {"softmax": "Softmax", "clipped_softmax": "ClippedSoftmax", "gated": "Gated"}
"""Classes of attention by what they were called."""

POOLS = {"mean": "avg"}
"""Values of ``pool`` that have another name."""


def model(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The model's settings by today's names; those that have them already are left as they are.

    >>> model({"width": 96, "lr": 0.1})
    {'lr': 0.1, 'network': {'embed_dim': 96}}
    """
    found = {name: value for name, value in settings.items() if name not in NETWORK and name not in ATTENTION}
    network = {new: settings[old] for old, new in NETWORK.items() if old in settings}
    if "global_pool" in network:
        network["global_pool"] = POOLS.get(network["global_pool"], network["global_pool"])
    given = {old: settings[old] for old in ATTENTION if old in settings}
    kind = network.get("attention")
    if kind in KINDS:
        word = {"clipped_softmax": "clip", "gated": "gate"}.get(kind, "no other kind has arguments")
        own = {ATTENTION[old]: value for old, value in given.items() if old.startswith(word)}
        network["attention"] = {"class_path": KINDS[kind], "init_args": own}
    elif given:  # of a kind that another file or the command line names
        network["attention"] = {"init_args": {ATTENTION[old]: value for old, value in given.items()}}
    return found | ({"network": network} if network else {})


def config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A whole configuration by today's names."""
    given = settings.get("model")
    return dict(settings) | ({"model": model(given)} if isinstance(given, Mapping) else {})


def flag(key: str) -> str | None:
    """Today's name of a key of the command line, such as ``model.width``; None where it has not changed."""
    group, _, name = key.partition(".")
    if group != "model":
        return None
    if name in ATTENTION:
        return f"model.network.attention.{ATTENTION[name]}"
    return f"model.network.{NETWORK[name]}" if name in NETWORK else None


def value(name: str, given: str) -> str:
    """Today's word for the value of an argument of the model, as it is typed.

    >>> value("attention", "gated"), value("pool", "mean"), value("width", "96")
    ('Gated', 'avg', '96')
    """
    return {"attention": KINDS, "pool": POOLS}.get(name, {}).get(given, given)


def before(key: str, given: str) -> tuple[str, str]:
    """A setting by dotted name and its value as JSON, as the first release would have written them.

    >>> before("model.network.attention", '"vitlocal.models.Gated"')
    ('model.attention', '"gated"')
    """
    group, _, name = key.removeprefix("model.network.").rpartition(".")
    if not key.startswith("model.network.") or group not in ("", "attention"):
        return key, given
    names = ATTENTION if group else NETWORK
    old = {new: old for old, new in names.items()}.get(name)
    if old is None:
        return key, given
    values = {f'"{new}"': f'"{old}"' for old, new in (KINDS if old == "attention" else POOLS).items()}
    word = f'"{given.strip(chr(34)).rpartition(".")[2]}"' if old == "attention" else given
    return f"model.{old}", values.get(word, given)
