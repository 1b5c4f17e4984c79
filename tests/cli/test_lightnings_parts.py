"""docs/lightning.md says of each callback and logger of Lightning's what comes of it on the command line."""

import re
from pathlib import Path

import pytest
from lightning.pytorch import callbacks, loggers

from tests.tools import lightnings_parts as parts
from vitlocal.cli.callbacks import REFUSED

PAGE = Path(__file__).parents[2] / "docs" / "lightning.md"
SAID = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.read_text("utf-8"), re.MULTILINE))
NEEDS = {"CometLogger": "comet_ml", "MLFlowLogger": "mlflow", "WandbLogger": "wandb"}
QUICK = ("LitLogger", "Timer")
refused = {kind.__name__ for kind in REFUSED}


def test_every_one_is_there():
    assert set(SAID) == {*parts.shipped(callbacks), *parts.shipped(loggers)}
    assert {*parts.CALLBACKS, *parts.LOGGERS} == set(SAID)
    assert {name for name, said in SAID.items() if said != "works"} == {*refused, "LitLogger"}


@pytest.mark.parametrize("name", [*QUICK, *sorted(refused)])
def test_what_the_page_says_comes(name):
    assert parts.outcome(name) == SAID[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*SAID} - refused - {*QUICK}))
def test_what_the_page_says_comes_of_the_others(name, monkeypatch):
    pytest.importorskip(NEEDS.get(name, "lightning"))
    for variable, value in parts.OFFLINE.items():
        monkeypatch.setenv(variable, value)
    assert parts.outcome(name) == SAID[name]
