import json
import re

import pytest
import yaml

from vitlocal import config_files
from vitlocal.cli.resolve import resolve
from vitlocal.errors import InputError
from vitlocal.study import plan, settings

CONDITIONS = {"baseline": "--config baseline.yaml", "modern": "--config modern.yaml"}
DIGITS = {"digits": "--config=digits.yaml"}


def test_a_cell_is_a_command_line_of_fit(tmp_path):
    made = plan.cells(tmp_path, resolve, DIGITS, CONDITIONS, [0, 1], "--model.network.embed_dim=12")
    assert [cell.name for cell in made] == [
        "digits/baseline/seed_0",
        "digits/modern/seed_0",
        "digits/baseline/seed_1",
        "digits/modern/seed_1",
    ]
    assert made[3].words == (
        *("--config=digits.yaml", "--config", "modern.yaml"),
        *("--model.network.embed_dim=12", "--seed_everything=1", "--trainer.devices=1"),
    )
    assert made[3].folder == tmp_path / "cells" / "digits" / "modern" / "seed_1"
    assert {cell.epochs for cell in made} == {36}
    assert not list(tmp_path.iterdir())


def test_the_fingerprint_is_of_what_a_run_does(tmp_path):
    def fingerprint(words, condition="baseline", seed=0):
        return plan.cells(tmp_path, resolve, DIGITS, {"c": CONDITIONS[condition]}, [seed], words)[
            0
        ].fingerprint

    same = fingerprint("")
    assert fingerprint("--model.network.depth=4") == same  # what the digits' file says anyway
    assert fingerprint("--data.num_workers=1 --checkpoint.monitor=val/loss --trainer.logger=false") == same
    assert fingerprint("", seed=1) == same  # a cell's folder tells the seed
    changed = [
        fingerprint("--model.network.depth=3"),
        fingerprint("--trainer.max_epochs=5"),
        fingerprint("", "modern"),
    ]
    assert len({same, *changed}) == 4


def test_settings_are_flat_and_without_what_has_no_effect():
    config = {
        "seed_everything": 1,
        "trainer": {"max_epochs": 3, "default_root_dir": "x"},
        "data": {"class_path": "A", "init_args": {"path": "p", "size": [1, 2]}},
        "checkpoint": {"class_path": "B"},
        "outliers": None,
        "protocol": {"mixing": None},
    }
    assert settings.flat(config) == {
        "trainer.max_epochs": "3",
        "data.class_path": '"A"',
        "data.size": "[1, 2]",
        "protocol.mixing": "null",
    }


def test_a_class_path_is_the_same_however_short():
    mixing = {"class_path": "vitlocal.protocol.CutMix", "init_args": {"alpha": 1.0}}
    shorter = {"class_path": "vitlocal.CutMix", "init_args": {"alpha": 1.0, "num_classes": None}}
    old, new = ({"protocol": {"mixing": each}} for each in (mixing, shorter))
    expected = {"protocol.mixing.class_path": '"vitlocal.protocol.CutMix"', "protocol.mixing.alpha": "1.0"}
    assert settings.flat(old) == settings.flat(new) | expected


def test_a_key_of_the_model_that_came_later_is_its_default():
    sizes = {"embed_dim": 96, "num_heads": 12}
    old, new = {"model": {"network": sizes}}, {"model": {"network": sizes | {"depth": 9}}}
    assert settings.flat(old) == settings.flat(new) == {"model.network.embed_dim": "96"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": {}}, "data is empty"),
        ({"conditions": {}}, "conditions is empty"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": [1, 1]}, "give each once"),
        ({"conditions": {"a/b": ""}}, "'a/b' would be a folder"),
        ({"conditions": {"..": ""}}, "would be a folder"),
        ({"data": {"": ""}}, "would be a folder"),
        ({"fit": "--model.widht=3"}, "cell digits/baseline/seed_0: there is no key model.widht"),
        ({"fit": "--model.network.embed_dim='3"}, "close each quote"),
        ({"fit": "--config nowhere.yaml"}, "cell digits/baseline/seed_0: config nowhere.yaml"),
        ({"fit": "--locality=null"}, "locality is null"),
        ({"fit": "--trainer.max_epochs=-1"}, "max_epochs is -1"),
        ({"fit": "--ckpt_path=hpc"}, "ckpt_path is given"),
        ({"seeds": [-1]}, "seed_everything is -1"),
        ({"then": "quantize"}, "then is 'quantize': write {run}"),
        ({"then": "quantise {run}"}, "then is 'quantise {run}': begin with one of validate"),
        ({"fit": "--help"}, "start no run: give settings"),
    ],
)
def test_what_makes_no_study(tmp_path, changes, sentence):
    given = {"data": DIGITS, "conditions": CONDITIONS, "seeds": [0], "fit": ""} | changes
    with pytest.raises(InputError, match=re.escape(sentence)):
        plan.cells(tmp_path, resolve, **given)


def shipped_study(name):
    return yaml.safe_load(config_files.find(name).read_text())


VARIED = {
    "ablation.yaml": ("protocol.",),
    "protocols.yaml": ("protocol.",),
    "dose.yaml": ("protocol.",),
    "why.yaml": ("protocol.",),
    "nothing.yaml": ("protocol.", "model.network.attention"),
    "sink.yaml": ("protocol.mixing", "model.network.init", "model.network.global_pool"),
    "fork.yaml": ("protocol.mixing",),
    "chain_of_thought.yaml": ("data.form", "model.network.depth"),
}


@pytest.mark.parametrize("name", VARIED)
@pytest.mark.parametrize("small", [False, True])
def test_shipped_studies_differ_in_what_they_ask_about_alone(tmp_path, name, small):
    study = shipped_study(name)
    data = dict([*study["data"].items()][:1])  # conditions are the same on each
    data = study.get("data_of_small", plan.SMALL) if small else data
    made = plan.cells(
        tmp_path, resolve, data, study["conditions"], [0], study.get("fit", ""), study.get("then", "")
    )
    for label in data:
        of_data = [cell for cell in made if cell.data == label]
        assert len({cell.fingerprint for cell in of_data}) == len(of_data)
        for cell in of_data:
            differ = {key for key, value in cell.settings.items() if of_data[0].settings.get(key) != value}
            assert all(key.startswith(VARIED[name]) for key in differ)


def test_the_ablation_is_the_whole_factorial(tmp_path):
    made = plan.cells(tmp_path, resolve, plan.SMALL, shipped_study("ablation.yaml")["conditions"], [0])
    parts = ("photometric", "mixing", "label_smoothing")
    found = {tuple(cell.settings.get(f"protocol.{part}") != "null" for part in parts) for cell in made}
    assert len(made) == len(found) == 8
    for part in parts:  # each is on or off, never another one
        values = [
            {k: v for k, v in cell.settings.items() if k.startswith(f"protocol.{part}")} for cell in made
        ]
        assert len({str(sorted(value.items())) for value in values}) == 2


def test_chains_of_thought_are_the_papers_table(tmp_path):
    study = shipped_study("chain_of_thought.yaml")
    chain = {"chain 3": study["conditions"]["chain 3"]}  # all conditions are checked above
    found = []
    for cell in plan.cells(tmp_path, resolve, study["data"], chain, [0]):
        given = {name.removeprefix("data."): json.loads(value) for name, value in cell.settings.items()}
        size = [given[name] for name in ("operators", "variables", "length") if name in given]
        found.append((given["class_path"].rpartition(".")[2], *size))
        assert given["form"] == "chain" and given.get("model.network.depth", 3) == 3
        assert (cell.epochs, given["train_size"], given["test_size"]) == (100, 10**6, 10**5)
        assert given["model.schedule_by_epoch"] and given["batch_size"] == 512
    sizes = {
        "Arithmetic": (4, 5, 6),
        "Equations": (3, 4, 5),
        "LIS": (50, 80, 100),
        "EditDistance": (12, 16, 20),
    }
    assert found == [(kind, size) for kind, of in sizes.items() for size in of]
    assert study["seeds"] == [0, 1, 2] and [*study["conditions"]] == [
        "direct 3",
        "direct 4",
        "direct 5",
        "chain 3",
    ]


def test_the_ten_graphs_have_the_settings_of_the_paper(tmp_path):
    study = shipped_study("nodes.yaml")
    found = {}
    for cell in plan.cells(tmp_path, resolve, study["data"], {"subtree": ""}, [0], study["fit"]):
        given = cell.settings
        found[cell.data] = tuple(given.get(f"model.{name}", default) for name, default in DEFAULTS.items())
        assert given["data.dataset"] == f'"{cell.data}"' and cell.epochs == 3000
        first = cell.data in ("cora", "citeseer", "deezer", "actor")
        assert given["data.train_fraction"] == ("0.5" if first else "0.6")
        assert given["data.split_seed"] == ("42" if first else "3047")
        assert (given.get("data.normalize_features") == "false") == (cell.data == "deezer")
        assert (given.get("data.self_loops") == "true") == (cell.data == "actor")
        assert (given.get("model.metric") == '"auroc"') == (cell.data == "deezer")
    assert found == PAPERS


DEFAULTS = {
    "network.num_hops": "3",
    "network.num_heads": "4",
    "network.combine": '"concat"',
    "network.drop_rate": "0.5",
    "lr": "0.01",
    "weight_decay": "0.0005",
}
PAPERS = {
    "cora": ("10", "4", '"concat"', "0.6", "0.01", "0.0001"),
    "citeseer": ("3", "2", '"sum"', "0.6", "0.01", "0.0001"),
    "deezer": ("3", "2", '"concat"', "0.0", "0.01", "0.005"),
    "actor": ("3", "4", '"concat"', "0.0", "0.001", "0.005"),
    "pubmed": ("3", "4", '"concat"', "0.2", "0.01", "0.0005"),
    "corafull": ("3", "4", '"sum"', "0.4", "0.001", "0.0001"),
    "computers": ("3", "4", '"concat"', "0.4", "0.01", "0.0001"),
    "photo": ("3", "8", '"sum"', "0.4", "0.01", "5e-05"),
    "cs": ("3", "6", '"sum"', "0.6", "0.001", "5e-05"),
    "physics": ("3", "8", '"sum"', "0.4", "0.01", "5e-05"),
}
"""Hops, heads, combination, dropout, learning rate and weight decay, as in the paper's code."""


def test_conditions_that_are_one_run_are_refused(tmp_path):
    conditions = {
        "baseline": "--config baseline.yaml",
        "crops": "--config modern.yaml --config baseline.yaml",
    }
    with pytest.raises(InputError, match="the conditions baseline and crops are the same run on digits"):
        plan.cells(tmp_path, resolve, DIGITS, conditions, [0])


def test_a_file_for_all_conditions_undoes_none(tmp_path):
    conditions = {"baseline": "", "cutmix": "--protocol.mixing=CutMix"}
    baseline, cutmix = plan.cells(tmp_path, resolve, DIGITS, conditions, [0], "--config baseline.yaml")
    assert baseline.settings["protocol.mixing"] == "null"
    assert cutmix.settings["protocol.mixing.class_path"] == '"vitlocal.protocol.CutMix"'


def test_conditions_begin_with_their_trunk(tmp_path):
    made = plan.cells(
        tmp_path, resolve, DIGITS, CONDITIONS, [0, 1], trunk="--config baseline.yaml --model.network.depth=2"
    )
    assert [cell.condition for cell in made] == 2 * ["trunk", "baseline", "modern"]
    assert [cell.trunk for cell in made] == [None, made[0], made[0], None, made[3], made[3]]
    assert plan.stages(made) == [[made[0], made[3]], [made[1], made[2], made[4], made[5]]]
    other = plan.cells(
        tmp_path, resolve, DIGITS, CONDITIONS, [0], trunk="--config baseline.yaml --model.network.depth=3"
    )
    plain = plan.cells(tmp_path, resolve, DIGITS, CONDITIONS, [0])
    assert len({cells[-1].fingerprint for cells in (made, other, plain)}) == 3
    with pytest.raises(InputError, match="a condition is called trunk"):
        plan.cells(tmp_path, resolve, DIGITS, {"trunk": ""}, [0], trunk="--config baseline.yaml")


def test_some_conditions_have_fewer_seeds(tmp_path):
    made = plan.cells(tmp_path, resolve, DIGITS, CONDITIONS, [0, 1], seeds_of={"modern": [1]})
    assert [cell.name for cell in made] == [
        "digits/baseline/seed_0",
        "digits/baseline/seed_1",
        "digits/modern/seed_1",
    ]
    with pytest.raises(InputError, match="seeds_of has 'moderm', which is no condition"):
        plan.cells(tmp_path, resolve, DIGITS, CONDITIONS, [0], seeds_of={"moderm": [0]})


def test_a_cell_is_of_one_device_unless_it_is_given_more(tmp_path):
    def cell(fit):
        (made,) = plan.cells(tmp_path, resolve, DIGITS, {"c": CONDITIONS["baseline"]}, [0], fit)
        return made

    auto, single, two = (cell(fit) for fit in ("", "--trainer.devices=1", "--trainer.devices=2"))
    assert "--trainer.devices=1" in auto.words and auto.fingerprint == single.fingerprint
    assert two.fingerprint != auto.fingerprint and "--trainer.devices=1" not in two.words
