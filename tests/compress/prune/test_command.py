"""The command: what it writes, what other commands make of it, how it resumes and what it refuses."""

import csv
import json
import subprocess

import numpy as np
import pytest
import torch
import yaml

from tests.blobs import fit, write
from vitlocal import hardware
from vitlocal.cli import main
from vitlocal.compress.prune import command, gradual, work
from vitlocal.compress.prune.command import prune
from vitlocal.compress.prune.latency import Latency
from vitlocal.compress.prune.parts import kept_by
from vitlocal.errors import InputError
from vitlocal.inspection.command import inspect
from vitlocal.runs import checkpoints, open_run
from vitlocal.runs.trained import trained_subject

SMALL = {"calibration_images": 24, "search_steps": 3, "repeats": 2, "batch_size": 4, "threads": 1}
FILES = {
    *("prune.csv", "prune.md", "prune_heads.csv", "latencies.json", "stages.json"),
    *("accuracy.png", "heads.png", "times.png", "speedup_1.2", "speedup_1.6"),
}


def table_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def take_made_up_times(patch, slower=1.0, heads=8, hidden=64):
    """Times that leave no doubt: half of the time is prunable, and half of that in each kind.

    Pruned networks take ``slower`` times what the table says; the dense one has these heads and features.
    """

    def time_of(network):
        parts = {"attention": 0, "mlp": 0}
        for part, count in kept_by(network).items():
            parts[part.kind] += count
        share = parts["attention"] / heads + parts["mlp"] / hidden
        return 10.0 if share == 2 else slower * (5 + 2.5 * share)

    patch.setattr(command.latency, "measure", made_up)
    patch.setattr(work, "medians", lambda calls, *_: [time_of(network) for network, _ in calls])


def made_up(_, shape, wanted, setting, repeats):
    """Of a network of two layers."""
    parts = {
        kind: {count: 1.25 * count / max(counts) for count in counts if count}
        for kind, counts in wanted.items()
    }
    return Latency(hardware.machine(setting.device), setting, (5, 16, 4), 10.0, 5.0, parts)


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "blobs.npz")


@pytest.fixture(scope="module")
def run(tmp_path_factory, blobs):
    return fit(tmp_path_factory.mktemp("run"), blobs, "--model.network.num_heads=4")


@pytest.fixture(scope="module")
def pruned(run):
    with pytest.MonkeyPatch.context() as patch:
        take_made_up_times(patch)
        rows = prune(run, [1.6, 1.2], **SMALL)
    return run / "prune", rows


@pytest.fixture(scope="module")
def small(pruned):
    return pruned[0] / "speedup_1.6"


@torch.no_grad()
def test_the_tables_hold_what_the_networks_do(pruned, run, blobs, small):
    output, rows = pruned
    assert {path.name for path in output.iterdir()} == FILES
    methods = ["ziplm", "diagonal", "magnitude", "random", "uniform"]
    assert [(row.method, row.wanted) for row in rows] == [
        ("dense", 1),
        *((method, speedup) for speedup in (1.2, 1.6) for method in methods),
    ]
    written = table_of(output / "prune.csv")
    assert [row["method"] for row in written] == [row.method for row in rows]
    with np.load(blobs) as arrays:
        images = torch.from_numpy(arrays["val_images"].transpose(0, 3, 1, 2))
        labels = torch.from_numpy(arrays["val_labels"][:, 0].astype(int))
    of = {(row["method"], row["wanted"]): row for row in written}
    for path, key in ((run, ("dense", "1.0")), (small, ("ziplm", "1.6"))):
        subject, row = trained_subject(open_run(path)).eval(), of[key]
        logits = subject(images)
        assert float(row["acc1"]) == float((logits.argmax(1) == labels).double().mean())
        loss = torch.nn.functional.cross_entropy(logits, labels).item()
        assert float(row["loss"]) == pytest.approx(loss, rel=1e-4)
        assert int(row["parameters"]) == sum(p.numel() for p in subject.network.parameters())
        blocks = subject.network.blocks
        assert int(row["heads"]) == sum(block.attn.num_heads for block in blocks if block.attn)
        assert int(row["hidden"]) == sum(block.mlp.fc2.in_features for block in blocks if block.mlp)
    for row in rows[1:]:
        assert row.predicted_ms <= 10 / row.wanted * 1.001
        assert row.equal_loss is None or row.calibration_loss <= row.equal_loss + 1e-5
    # The table: 10 ms, of which 5 can be pruned, heads and features each by their share.
    last = of["ziplm", "1.6"]
    expected = 5 + 2.5 * int(last["heads"]) / 8 + 2.5 * int(last["hidden"]) / 64
    assert float(last["predicted_ms"]) == pytest.approx(expected)
    assert "| ziplm | 1.6 |" in (output / "prune.md").read_text()


def test_every_head_has_its_place_in_the_order(pruned, run, small):
    rows = table_of(pruned[0] / "prune_heads.csv")
    assert [(row["layer"], row["head"]) for row in rows] == [(a, b) for a in "01" for b in "0123"]
    for layer in "01":
        ordered = sorted((row for row in rows if row["layer"] == layer), key=lambda row: int(row["order"]))
        assert [int(row["order"]) for row in ordered] == [0, 1, 2, 3]
        errors = [float(row["error"]) for row in ordered]
        assert errors == sorted(errors)
    kept = open_run(small).hyperparameters["network"]["init_args"]["kept_heads"]
    for row in rows:
        assert (row["gone_at"] != "") == (int(row["head"]) not in kept[int(row["layer"])])
    seen = [row for row in table_of(run / "heads.csv") if row["epoch"] == "2"]
    best = open_run(run).checkpoints["best.ckpt"]
    if torch.load(best, weights_only=True)["epoch"] == 1:  # the table's last epoch is that of the checkpoint
        for row, expected in zip(rows, seen, strict=True):
            assert float(row["mad"]) == pytest.approx(float(expected["mad"]), rel=1e-3)


def test_it_is_a_run_that_other_commands_take(small, run, blobs, tmp_path, capsys):
    config = yaml.safe_load((small / "config.yaml").read_text())
    sizes = config["model"]["init_args"]["network"]["init_args"]
    own = open_run(small).hyperparameters["network"]["init_args"]
    assert sizes["kept_heads"] == own["kept_heads"] and sizes["mlp_hidden"] == own["mlp_hidden"]
    assert own["num_heads"] == 4 and own["kept_heads"] != [[0, 1, 2, 3]] * 2

    words = ["--config=npz.yaml", f"--data.path={blobs}", "--config=baseline.yaml"]
    words += [f"--trainer.default_root_dir={tmp_path}", "--trainer.accelerator=cpu"]
    last = small / "checkpoints" / "last.ckpt"
    main(["validate", *words, f"--ckpt_path={last}"])
    wanted = next(row for row in table_of(small.parent / "prune.csv") if row["wanted"] == "1.6")["acc1"]
    (validated,) = tmp_path.glob("lightning_logs/*-validate/version_0")
    heads = [(int(row["layer"]), int(row["head"])) for row in table_of(validated / "heads.csv")]
    assert heads == [(layer, head) for layer, kept in enumerate(own["kept_heads"]) for head in kept]
    assert f"{float(wanted):.3f}"[:4] in capsys.readouterr().out
    main(["predict", *words, f"--ckpt_path={last}"])
    assert len(table_of(next(tmp_path.rglob("predictions.csv")))) == 7

    inspect(str(small), output=tmp_path / "inspect", maps=1)
    inspected = table_of(tmp_path / "inspect" / "heads.csv")
    assert [(int(row["layer"]), int(row["head"])) for row in inspected] == heads
    main(["export", f"--ckpt_path={small}", f"--output={tmp_path / 'vit.onnx'}"])
    main(
        [
            *("quantize", f"--ckpt_path={small}", f"--output={tmp_path / 'q'}", "--seeds=[0]"),
            *("--calibration_batches=2", "--batch_size=8", "--repeats=1"),
        ]
    )
    parts = {row["part"] for row in table_of(tmp_path / "q" / "quantize.csv")}
    assert {"fp32", "w8a8", "int8"} <= parts


def test_it_is_trained_on(small, tmp_path):
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    words = [f"--config={small / 'config.yaml'}", f"--trainer.default_root_dir={tmp_path}", *quiet]
    main(["fit", *words, f"--init_from={small}", "--trainer.max_epochs=1", "--outliers=OutlierMonitor"])
    (tuned,) = tmp_path.glob("lightning_logs/*/version_0")
    assert {row["epoch"] for row in table_of(tuned / "heads.csv")} == {"0", "1"}
    before = checkpoints.read(small / "checkpoints" / "last.ckpt")
    after = checkpoints.read(tuned / "checkpoints" / "last.ckpt")
    assert {k: v.shape for k, v in before["state_dict"].items()} == {
        k: v.shape for k, v in after["state_dict"].items()
    }
    # It resumes where the dense run was, after two epochs, with a new optimiser.
    words = [*words, f"--ckpt_path={small / 'checkpoints' / 'last.ckpt'}", "--trainer.max_epochs=3"]
    main(["fit", *words])
    longer = max(tmp_path.glob("lightning_logs/*/version_*"), key=lambda path: path.stat().st_mtime_ns)
    resumed = checkpoints.read(longer / "checkpoints" / "last.ckpt")
    done = before["epoch"] + 1
    steps = {int(state["step"]) for state in resumed["optimizer_states"][0]["state"].values()}
    assert resumed["epoch"] == 2 and steps == {3 * (3 - done)}  # of three batches


def test_a_pruned_run_is_pruned_further(small, tmp_path, monkeypatch):
    take_made_up_times(monkeypatch)
    rows = prune(small, [1.3], output=tmp_path, rival_methods=False, **SMALL)
    assert [row.method for row in rows] == ["dense", "ziplm"]
    before = open_run(small).hyperparameters["network"]["init_args"]
    after = open_run(tmp_path / "speedup_1.3").hyperparameters["network"]["init_args"]
    assert all(
        set(new) <= set(old) for new, old in zip(after["kept_heads"], before["kept_heads"], strict=True)
    )
    assert sum(after["mlp_hidden"]) + sum(map(len, after["kept_heads"])) < sum(before["mlp_hidden"]) + sum(
        map(len, before["kept_heads"])
    )


def test_gradually_each_is_pruned_from_the_one_before(run, tmp_path, monkeypatch):
    """The processes of fit, here in this one; once they are done they are not started again."""
    started = []

    def fit_here(words, **options):
        started.append(words)
        main([*words[3:], "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"])
        return subprocess.CompletedProcess(words, 0)

    take_made_up_times(monkeypatch)
    monkeypatch.setattr(gradual.subprocess, "run", fit_here)
    options = SMALL | {"rival_methods": False, "epochs": 1, "search_steps": 0}
    rows = prune(run, [1.2, 1.6], output=tmp_path, **options)
    assert [(row.method, row.wanted) for row in rows][3:] == [("gradual", 1.2), ("gradual", 1.6)]
    first, second = (
        open_run(next(tmp_path.glob(f"gradual_{speedup}/trained_*/lightning_logs/*/version_0")))
        for speedup in ("1.2", "1.6")
    )
    assert [words[3] for words in started] == ["fit", "fit"]
    for run_of, row in ((first, rows[3]), (second, rows[4])):
        network = run_of.load_module().network
        assert row.parameters == sum(parameter.numel() for parameter in network.parameters())
        assert run_of.config["distillation"]["init_args"]["teacher"] == str(open_run(run).checkpoint)
        assert run_of.hyperparameters["lr"] == pytest.approx(0.002)
        assert row.predicted_ms <= 10 / row.wanted * 1.001
    for old, new in zip(*(each.load_module().network.blocks for each in (first, second)), strict=True):
        assert new.attn is None or set(new.attn.head_numbers) <= set(old.attn.head_numbers)
    again = prune(run, [1.2, 1.6], output=tmp_path, **options)
    assert len(started) == 2 and [row.acc1 for row in again] == [row.acc1 for row in rows]
    monkeypatch.setattr(
        gradual.subprocess, "run", lambda words, **options: subprocess.CompletedProcess(words, 3)
    )
    with pytest.raises(InputError, match=r"gradual_1\.2 ended with exit code 3, see above"):
        prune(run, [1.2], output=tmp_path, **(options | {"epochs": 2}))


def test_what_was_stopped_resumes(run, tmp_path, monkeypatch):
    """Killed in the third search: what was found is not searched again, the rest is as if never stopped."""
    measured, searched, real = [], [], work.Work.search

    def measure(*given):
        measured.append(given)
        return made_up(*given)

    def search(self, *given):
        if len(searched) == 2 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        searched.append(given[-1])
        return real(self, *given)

    take_made_up_times(monkeypatch)
    monkeypatch.setattr(command.latency, "measure", measure)
    monkeypatch.setattr(work.Work, "search", search)
    with pytest.raises(KeyboardInterrupt):
        prune(run, [1.2, 1.6], output=tmp_path / "out", **SMALL)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"latencies.json", "stages.json"}
    (tmp_path / "again").touch()
    (tmp_path / "out" / f".prune.{1}.tmp.csv").touch()  # as a killed process leaves one
    rows = prune(run, [1.2, 1.6], output=tmp_path / "out", **SMALL)
    assert len(measured) == 1 and len(searched) == len(set(searched)) == 8
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    monkeypatch.setattr(work.Work, "search", real)
    straight = prune(run, [1.2, 1.6], output=tmp_path / "straight", **SMALL)
    timeless = {"measured_ms": 0.0, "speedup": 0.0}
    assert [vars(row) | timeless for row in rows] == [vars(row) | timeless for row in straight]
    # With another seed nothing of it can be used.
    found = json.loads((tmp_path / "out" / "stages.json").read_text())["found"]
    assert len(found) == 10  # of five methods
    prune(run, [1.2], output=tmp_path / "out", **(SMALL | {"seed": 1}), rival_methods=False)
    assert set(json.loads((tmp_path / "out" / "stages.json").read_text())["found"]) == {"ziplm 1.2"}


def test_what_is_slower_than_its_table_says_gets_less(run, tmp_path, monkeypatch):
    """Pruned networks take a tenth more than the table has: the budget shrinks until they are fast enough."""
    take_made_up_times(monkeypatch, slower=1.1)
    rows = prune(run, [1.4], output=tmp_path / "out", **SMALL)
    assert len(rows) == 6
    for row in rows[1:]:
        assert row.speedup == pytest.approx(1.4, rel=0.04) and row.predicted_ms < 6.7  # not 7.1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"speedups": []}, r"speedups is \[\]: give numbers above 1"),
        ({"speedups": [1.0, 2.0]}, r"speedups is \[1.0, 2.0\]: give numbers above 1"),
        ({"speedups": [float("nan")]}, "speedups is"),
        ({"calibration_images": 0}, "calibration_images is 0: give at least 1"),
        ({"search_steps": -1}, "search_steps is -1: it must be a number of 0"),
        ({"epochs": -1}, "epochs is -1: it must be a number of 0"),
        ({"epochs": 1, "lr": -0.1}, "lr is -0.1: it must be a number of 0"),
        ({"seed": -1}, "seed is -1: it must be from 0"),
        ({"threads": 0}, "threads is 0: give at least 1"),
        ({"speedups": [5.0]}, "speedup of 5 can't be reached: .* is 2.00 times as fast as now; give less"),
        ({"data": "digits.yaml"}, r"the model has image_size \(8, 8\) but the data set digits has"),
    ],
)
def test_refusals(run, tmp_path, monkeypatch, options, sentence):
    take_made_up_times(monkeypatch)
    with pytest.raises(InputError, match=sentence):
        prune(run, **({"speedups": [1.5], "output": tmp_path / "out"} | SMALL | options))
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {"latencies.json"}


def test_no_calibration_images(run, tmp_path, monkeypatch):
    monkeypatch.setattr(work, "chosen_training_batches", lambda *given: [])
    with pytest.raises(InputError, match="the data set blobs has no training images to calibrate on"):
        prune(run, [1.5], output=tmp_path / "out", **SMALL)


def test_the_latencies_of_another_machine(pruned, run, tmp_path):
    table = json.loads((pruned[0] / "latencies.json").read_text()) | {"machine": "another"}
    (tmp_path / "other.json").write_text(json.dumps(table))
    with pytest.raises(InputError, match="on another machine"):
        prune(run, [1.5], output=tmp_path / "out", latencies=tmp_path / "other.json", **SMALL)
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_finite(run, tmp_path, monkeypatch):
    take_made_up_times(monkeypatch)
    content = torch.load(open_run(run).checkpoint, weights_only=True)
    content["state_dict"]["network.blocks.0.mlp.fc2.bias"][:] = torch.nan
    torch.save(content, tmp_path / "nan.ckpt")
    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    with pytest.raises(InputError, match=r"logits of .* are not finite: give a model"):
        prune(tmp_path / "nan.ckpt", [1.5], **SMALL)


def test_on_the_command_line(run, tmp_path, capsys):
    """With real latencies: whether 1.05x can be reached depends on the machine, and is said either way."""
    words = [str(run), "--speedups=[1.05]", f"--output={tmp_path}", "--rival_methods=false", "--repeats=2"]
    try:
        main(["prune", *words, "--search_steps=0", "--calibration_images=8", "--batch_size=4"])
    except InputError as error:
        assert "can't be reached" in str(error)
    else:
        assert "| ziplm | 1.05 |" in capsys.readouterr().out
    assert json.loads((tmp_path / "latencies.json").read_text())["setting"]["batch_size"] == 4
