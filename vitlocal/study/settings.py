"""What of a run's configuration decides what comes out of it."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

# Settings that change where, how fast or how safely a run goes, not what its heads do.
_WITHOUT_EFFECT = {
    "seed_everything",
    "ckpt_path",
    "data.path",
    "data.sources",
    "data.num_workers",
    "trainer.default_root_dir",
    "trainer.logger",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
}


def flat(config: Mapping[str, Any]) -> dict[str, str]:
    """Settings by dotted name as JSON, without ``init_args``, the seed and what has no effect."""
    return {name: value for name, value in _flat(config, "") if name not in _WITHOUT_EFFECT}


def _flat(value: Any, prefix: str) -> Iterable[tuple[str, str]]:
    if prefix == "checkpoint":  # which weights are kept, not which they are
        return
    if isinstance(value, Mapping):
        for key, below in value.items():
            name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else str(key)
            yield from _flat(below, name)
    else:
        yield prefix, json.dumps(value, default=str)
