"""The command line, from end to end on small data."""

import csv
import re
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningCLI

from tests.spoilt import checkpoint, image_folder
from vitlocal import __version__
from vitlocal.cli import main

SMALL = [
    "--model.network.embed_dim=16",
    "--model.network.depth=2",
    "--model.network.num_heads=2",
    "--data.batch_size=8",
]
QUIET = [
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
]


@pytest.fixture
def fit(tmp_path, monkeypatch, npz_file):
    """Run ``fit`` on a small data set in the test's folder, with no figures drawn; gives the run's folder."""
    monkeypatch.chdir(tmp_path)

    def run(*args, protocol="modern.yaml", command="fit"):
        before = set(tmp_path.glob("lightning_logs/*/version_*"))
        data = ["--config", "npz.yaml", f"--data.path={npz_file}", "--config", protocol]
        words = [*SMALL, *QUIET, "--trainer.max_epochs=2", "--trainer.logger=false"]
        main([command, *data, *words, *args])
        new = set(tmp_path.glob("lightning_logs/*/version_*")) - before
        assert len(new) <= 1
        return new.pop() if new else None

    return run


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def losses(run):
    rows = table(run / "metrics.csv")
    assert len(rows) == 2
    return [(row["train/loss"], row["val/loss"]) for row in rows]


def refused(args, capsys):
    """The words with which ``args`` are refused: no traceback, an exit code that is not 0."""
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code not in (0, None)
    said = capsys.readouterr().err
    return caught.value.code if isinstance(caught.value.code, str) else said


def test_a_run_and_its_replay(fit):
    run = fit("--trainer.logger=true")
    assert run.parts[-2:] == ("blobs-modern", "version_0")
    assert {path.name for path in (run / "checkpoints").iterdir()} == {
        "best.ckpt",
        "last.ckpt",
        "last.previous.ckpt",
    }
    heads = table(run / "heads.csv")
    assert len(heads) == 3 * 2 * 2  # epochs 0, 1 and 2; layers; heads
    saved = run / "config.yaml"
    main(["fit", "--config", str(saved)])
    again = run.with_name("version_1")
    assert losses(again) == losses(run)
    assert table(again / "heads.csv") == heads
    assert yaml.safe_load((again / "config.yaml").read_text()) == yaml.safe_load(saved.read_text())
    other = fit("--seed_everything=1")  # without a logger the tables are written too
    written = {"heads.csv", "geometry.json", "metrics.csv", "checkpoints", "config.yaml"}
    assert written == {path.name for path in other.iterdir()}
    assert losses(other) != losses(run)


def test_watching_the_heads_changes_nothing(fit):
    watched, unwatched = fit(), fit("--locality=null")
    assert losses(watched) == losses(unwatched)
    assert (watched / "heads.csv").exists() and not (unwatched / "heads.csv").exists()
    # Nor does it matter how often.
    assert losses(fit("--locality.every_n_epochs=2", "--locality.before_training=false")) == losses(watched)


def test_components_are_switched_one_by_one(fit):
    run = fit("--protocol.mixing=null")
    assert run.parent.name == "blobs-cropflip+autoaugment+labelsmoothing"
    assert yaml.safe_load((run / "config.yaml").read_text())["protocol"]["mixing"] is None
    assert fit("--protocol.photometric=ColorJitter").parent.name == "blobs-modern"
    assert fit("--protocol.mixing=MixUp").parent.name == "blobs-cropflip+autoaugment+mixup+labelsmoothing"
    assert fit(protocol="baseline.yaml").parent.name == "blobs-baseline"


def test_evaluating_a_run(fit, capsys):
    fit()
    capsys.readouterr()
    tested = fit("--ckpt_path=best", command="test")
    assert "test/acc1" in capsys.readouterr().out
    assert tested.parent.name == "blobs-modern-test"
    assert len(table(tested / "heads.csv")) == 4
    fit("--ckpt_path=last", command="validate")
    assert "val/acc5" in capsys.readouterr().out
    path = "lightning_logs/blobs-modern/version_0/checkpoints/last.ckpt"
    predicted = fit(f"--ckpt_path={path}", command="predict")
    rows = table(predicted / "predictions.csv")
    assert len(rows) == 7 and set(rows[0]) == {"image", "label", "predicted", "probability"}


def test_a_checkpoint_has_the_model_s_settings(fit, capsys, tmp_path):
    run = fit("--model.network.depth=3")
    assert (
        fit("--ckpt_path=best", "--model.network.depth=3", command="test").parent.name == "blobs-modern-test"
    )
    data = ["--config=npz.yaml", f"--data.path={tmp_path / 'blobs.npz'}", "--config=modern.yaml"]
    main(["validate", *data, *QUIET, "--ckpt_path=best"])  # what isn't typed is the checkpoint's
    for words in (["test", "--model.network.depth=2"], ["fit", "--model.network.depth=3", "--model.lr=0.5"]):
        said = refused([*words, *data, *QUIET, f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"], capsys)
        name, given = words[-1].removeprefix("--").split("=")
        assert f"{name} is {given} but the checkpoint" in said and "leave it out" in said
    assert len(list(tmp_path.glob("lightning_logs/*/version_*"))) == 3


def test_another_kind_of_model_has_a_folder_of_its_own(fit):
    clipped = ["--model.network.attention=ClippedSoftmax", "--model.network.attention.alpha=0.5"]
    assert fit(*clipped).parent.name == "blobs-modern-clipped_softmax"
    plain = fit("--model.network.patch_norm=true")
    assert plain.parts[-2:] == ("blobs-modern", "version_0")
    tested = fit("--ckpt_path=best", *clipped, command="test")
    assert tested.parent.name == "blobs-modern-clipped_softmax-test"
    config = yaml.safe_load((tested / "config.yaml").read_text())
    assert (
        config["ckpt_path"] == "lightning_logs/blobs-modern-clipped_softmax/version_0/checkpoints/best.ckpt"
    )


def test_last_resumes_in_the_same_run(fit):
    straight = fit("--trainer.max_epochs=3")
    run = fit("--trainer.max_epochs=3", "--trainer.limit_train_batches=3")
    table_before = table(run / "metrics.csv")
    assert fit("--trainer.max_epochs=4", "--ckpt_path=last") is None
    rows = table(run / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[:3] == table_before
    assert {row["epoch"] for row in table(run / "heads.csv")} == {"0", "1", "2", "3", "4"}
    saved, of_straight = (yaml.safe_load((each / "config.yaml").read_text()) for each in (run, straight))
    assert saved["ckpt_path"] is None and saved["model"] == of_straight["model"]
    assert table(straight / "metrics.csv") == table_before


def test_without_checkpoints_by_lightnings_own_flag(fit):
    """As gluonts#3348 has it, it would be refused because of a callback that nobody gave."""
    run = fit("--trainer.enable_checkpointing=false", "--trainer.max_epochs=1")
    assert len(table(run / "metrics.csv")) == 1 and not list(run.rglob("*.ckpt"))


def test_a_checkpoint_callback_can_follow_locality(fit):
    run = fit("--checkpoint.monitor=locality/mad_min", "--checkpoint.mode=min")
    assert (run / "checkpoints" / "best.ckpt").exists()


def test_a_dry_run_writes_no_tables(fit, tmp_path):
    fit("--trainer.fast_dev_run=1")
    assert not list(tmp_path.rglob("*.csv"))


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--version"]], ids=" ".join)
def test_help_and_version_do_not_wait_for_torch(words):
    code = f"import sys; from vitlocal.cli import main; main({words}); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    if words == ["--version"]:
        assert done.stdout == f"vitlocal {__version__}\n"
    else:
        assert all(f"\n  {command} " in done.stdout for command in LightningCLI.subcommands())


def test_the_progress_bar(fit, monkeypatch):
    bars = []

    def no_training(trainer, *args, **kwargs):
        found = [callback for callback in trainer.callbacks if isinstance(callback, ProgressBar)]
        bars.append([callback.refresh_rate for callback in found])
        # In one process only, a bar would else wait for what the others compute later.
        assert trainer.callbacks[len(trainer.callbacks) - len(found) :] == found

    monkeypatch.setattr(Trainer, "_fit_impl", no_training)  # of fit itself the signature is read

    fit()
    fit("--trainer.enable_progress_bar=true")
    fit(
        "--trainer.enable_progress_bar=true",
        "--trainer.callbacks+=TQDMProgressBar",
        "--trainer.callbacks.refresh_rate=3",
    )
    assert bars == [[], [10], [3]]


def test_lightning_does_not_speak_of_itself(tmp_path):
    """In a process of its own: what is said goes to the standard error of a run."""
    words = ["fit", "--config", "digits.yaml", *SMALL, "--trainer.fast_dev_run=1"]
    done = subprocess.run(
        [sys.executable, "-m", "vitlocal", *words], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "Seed set to" in done.stderr
    assert "litlogger" not in done.stderr and "LeafSpec" not in done.stderr


@pytest.mark.parametrize(
    ("given", "expected"), [([], "bf16-mixed"), (["--trainer.precision=32-true"], "32-true")]
)
def test_the_precision_is_the_hardware_s_unless_given(given, expected, npz_file, monkeypatch, capsys):
    monkeypatch.setattr("vitlocal.hardware.precision", lambda accelerator: "bf16-mixed")
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", "npz.yaml", f"--data.path={npz_file}", *given, "--print_config"])
    assert ended.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["precision"] == expected


def test_compare(fit, tmp_path, capsys):
    runs = [
        str(fit(protocol=protocol).relative_to(tmp_path)) for protocol in ("baseline.yaml", "modern.yaml")
    ]
    main(["compare", *runs, "--output=both"])
    assert "open both/index.html" in capsys.readouterr().out
    with (tmp_path / "both" / "runs.csv").open() as file:
        assert [row["condition"] for row in csv.DictReader(file)] == ["baseline", "modern"]
    with (tmp_path / "both" / "heads.csv").open() as file:
        assert sum(1 for _ in csv.DictReader(file)) == 2 * 3 * 2 * 2  # runs, epochs, layers, heads


@pytest.mark.parametrize(
    ("words", "sentence", "code"),
    [
        ([], "runs is missing: give it", 2),
        (["nowhere"], "nowhere", 1),
        (["."], "no run", 1),
        ([".", "--out=x"], "no key out; perhaps output is meant", 2),
    ],
)
def test_wrong_words_to_compare(words, sentence, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["compare", *words])
    said = capsys.readouterr().err
    assert ended.value.code == code and sentence in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_digits_are_the_default(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["fit", "--config", "modern.yaml", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"]["class_path"] == "vitlocal.Digits"
    assert printed["protocol"]["crop_flip"]["init_args"] == {"padding": 4, "flip": False}
    with pytest.raises(SystemExit):
        main(["fit", "--config", "modern.yaml", "--data=CIFAR10", "--print_config"])
    # Another data set is not trained with the digits' model.
    assert (
        yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["network"]["init_args"]["embed_dim"]
        == 192
    )


@pytest.mark.parametrize(
    "words", ["--config modern.yaml -c=baseline.yaml", "-c modern.yaml --config=baseline.yaml"]
)
def test_what_is_typed_counts_before_files_too(words, tmp_path, monkeypatch, capsys):
    """As pytorch-lightning#17533 has it, a file that is named behind them would undo the flags."""
    monkeypatch.chdir(tmp_path)
    typed = ["--protocol.mixing=CutMix", "--trainer.max_epochs", "5"]
    with pytest.raises(SystemExit):
        main(["fit", *typed, *words.split(), "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["protocol"]["mixing"]["class_path"].endswith(".CutMix")
    # Of the files, the last counts.
    assert printed["protocol"]["label_smoothing"] is None and printed["trainer"]["max_epochs"] == 5


def test_a_file_of_ones_own_goes_before_a_shipped_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "modern.yaml").write_text("protocol: {label_smoothing: {epsilon: 0.3}}\n")
    with pytest.raises(SystemExit):
        main(["fit", "--config", "modern.yaml", "--print_config"])
    protocol = yaml.safe_load(capsys.readouterr().out)["protocol"]
    assert protocol["label_smoothing"]["init_args"]["epsilon"] == 0.3 and protocol["mixing"] is None


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--config", "nosuch.yaml"], "shipped are ablation.yaml, arithmetic.yaml, baseline.yaml"),
        (["--ckpt_path=best"], "no run in lightning_logs/digits-baseline has a best.ckpt"),
        (["--protocol.mixing=CutMix", "--protocol.mixing.probability=3"], "probability=3.0 is given"),
        (["--model.network.patch_size=5"], "patch_size is 5 and the images are 32x32"),
        (["--model.colour=red"], "model.colour"),
        (["--data.batch_size=0"], "batch_size=0"),
        (["--locality.unit=miles"], "grid"),
        (["--trainer.max_epochs=many"], "max_epochs"),
    ],
)
def test_wrong_input_is_refused_in_words(args, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refused(["fit", *args, *QUIET], capsys)
    assert sentence in said and "Traceback" not in said


def test_control_c_ends_a_run_without_a_traceback(fit, monkeypatch, capsys):
    def interrupted(self, batch, batch_idx):
        raise KeyboardInterrupt

    monkeypatch.setattr("vitlocal.tasks.Classification.training_step", interrupted)
    with pytest.raises(SystemExit) as caught:
        fit()
    assert caught.value.code == 1 and "Traceback" not in capsys.readouterr().err


def test_the_end_of_a_run_says_where_it_is(fit, caplog):
    run = fit()
    assert f"the run is in {run.relative_to(run.parents[2])}" in caplog.text


def test_a_folder_is_predicted_without_the_training_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pets = image_folder(tmp_path / "pets")
    words = ["--config=image_folder.yaml", "--data.path=pets", "--data.image_size=8", "--data.resize=pad"]
    main(["fit", *words, *SMALL, *QUIET, "--trainer.max_epochs=1", "--model.network.patch_size=4"])
    (run,) = tmp_path.glob("lightning_logs/*/version_0")
    best = run / "checkpoints" / "best.ckpt"
    main(["predict", *words, *QUIET, f"--ckpt_path={best}"])
    expected = table(next(tmp_path.glob("lightning_logs/pets-*-predict/version_0/predictions.csv")))
    pets.rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "pets.vitlocal")
    main(["predict", *QUIET, f"--ckpt_path={best}", "--images=elsewhere/val"])
    found = table(next(tmp_path.glob("lightning_logs/val-*-predict/version_0/predictions.csv")))
    assert [row["image"] for row in found] == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    assert [row["label"] for row in found] == [""] * 4
    for name in ("predicted", "probability"):
        assert [row[name] for row in found] == [row[name] for row in expected]
    assert {row["predicted"] for row in found} <= {"cat", "dog"}
    assert "digits" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--images=pics"], "images is given without ckpt_path"),
        (["--images=nothing", "--ckpt_path=x.ckpt"], "nothing: there is no such folder"),
        (["--images=empty", "--ckpt_path=x.ckpt"], "there is no image in .*empty"),
        (["--images=pics", "--ckpt_path=x.ckpt"], r"pics/b\.png can't be decoded"),
        (["--images=pics", "--ckpt_path=y.ckpt"], "y.ckpt doesn't say which images it takes"),
    ],
)
def test_a_folder_that_cannot_be_predicted(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "x.ckpt")
    torch.save({"state_dict": {}, "hyper_parameters": {}}, tmp_path / "y.ckpt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics/b.png").write_bytes(b"no image")
    said = refused(["predict", *QUIET, "--trainer.accelerator=cpu", *words], capsys)
    assert re.search(sentence, said) and "Traceback" not in said
    assert not list(tmp_path.rglob("predictions.csv"))
