"""Each run has a folder of its own, where all of it goes, whatever the loggers."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import forked
from tests.blobs import write
from tests.spoilt import on_blobs
from vitlocal.cli import main
from vitlocal.errors import InputError
from vitlocal.runs import folders, open_run

OURS = {"config.yaml", "metrics.csv", "heads.csv", "geometry.json", "checkpoints"}
CHECKPOINTS = {"best.ckpt", "last.ckpt"}


def runs(folder):
    return sorted(folder.glob("lightning_logs/*/version_*"))


def test_of_many_at_once_each_has_its_own(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: folders.reserve(tmp_path / "logs" / "a"), range(64)))
    assert sorted(map(folders.number, made)) == list(range(64))


def test_a_refused_run_beside_does_not_take_the_folder_away(tmp_path):
    def one(number):
        version = folders.reserve(tmp_path / "logs" / "a")
        if number % 2:
            folders.discard(version)
            return None
        return version

    with ThreadPoolExecutor(16) as pool:
        kept = [version for version in pool.map(one, range(64)) if version]
    assert len(set(kept)) == 32 and all(version.is_dir() for version in kept)
    for version in kept:
        folders.discard(version)
    assert not (tmp_path / "logs").exists()


def test_two_fits_started_together(tmp_path):
    write(tmp_path / "blobs.npz")
    both = [forked.start(on_blobs(tmp_path, "--config=baseline.yaml"), tmp_path) for _ in range(2)]
    for process in both:
        process.join(200)
        assert process.exitcode == 0
    first, second = runs(tmp_path)
    for run in (first, second):
        assert {path.name for path in run.iterdir()} > OURS
        assert len(list(run.glob("events.out.tfevents.*"))) == 1
    assert (first / "heads.csv").read_text() == (second / "heads.csv").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["--trainer.logger=false"],
        ["--trainer.logger=tests.runs.loggers.Remote"],
        ["--trainer.logger=tests.runs.loggers.Remote", "--trainer.logger.save_dir=shared"],
        ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=shared"],
        [
            "--trainer.logger+=tests.runs.loggers.Remote",
            "--trainer.logger+=TensorBoardLogger",
            "--trainer.logger.save_dir=shared",
        ],
    ],
    ids=["none", "save_dir is None", "one folder for all", "CSV", "several"],
)
def test_the_run_is_where_we_say(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = [*words, "--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.filename=every"]
    main(on_blobs(tmp_path, *mine))
    (first,) = runs(tmp_path)
    before = {path: path.read_bytes() for path in first.rglob("*.*") if path.is_file()}
    main(on_blobs(tmp_path, *mine, "--seed_everything=1"))
    _, second = runs(tmp_path)
    for run in (first, second):
        assert {path.name for path in run.iterdir()} == OURS
        assert {path.name for path in (run / "checkpoints").iterdir()} >= {*CHECKPOINTS, "every.ckpt"}
    assert before == {path: path.read_bytes() for path in before}  # the second left the first alone
    assert second.name == "version_1" and open_run(second).config["seed_everything"] == 1
    main(on_blobs(tmp_path, *words, "--trainer.max_epochs=2", "--ckpt_path=last", "--seed_everything=1"))
    assert runs(tmp_path) == [first, second]
    assert open_run(second).table("metrics")["epoch"].tolist() == [1, 2]
    assert not {"metrics.csv", "heads.csv"} & {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("logger", ["true", "false", "tests.runs.loggers.Remote"])
def test_a_refused_run_leaves_no_folder(logger, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(on_blobs(tmp_path, f"--trainer.logger={logger}", "--model.network.patch_size=5"))
    assert "patch_size is 5" in capsys.readouterr().err
    assert not (tmp_path / "lightning_logs").exists()


def test_a_run_that_has_begun_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fail(self, batch, batch_idx):
        raise InputError("no more")

    monkeypatch.setattr("vitlocal.tasks.Classification.training_step", fail)
    with pytest.raises(SystemExit):
        main(on_blobs(tmp_path))
    (run,) = runs(tmp_path)
    assert (run / "config.yaml").exists()


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ({"network": {"depth": 3}, "lr": 0.1, "schedule": "constant"}, ""),
        ({"network": {"attention": {"class_path": "vitlocal.models.Softmax"}}}, ""),
        ({"network": {"attention": {"class_path": "a.b.ClippedSoftmax"}}}, "clipped_softmax"),
        ({"network": {"attention": {"class_path": "Gated", "init_args": {"gate": "linear"}}}}, "gated"),
        ({"network": {"attention": {"class_path": "Gated", "init_args": {"gate": "mlp"}}}}, "gated-gate=mlp"),
        (
            {"class_path": "vitlocal.tasks.Classification", "init_args": {"network": {"init": "lee"}}},
            "init=lee",
        ),
        ({"network": {"global_pool": "avg"}}, "pool=mean"),  # as earlier releases called it
        ({"network": {"class_path": "mine.Net", "init_args": {"name": "a/b", "size": 3}}}, "net-name=a_b"),
    ],
)
def test_the_name_holds_what_makes_another_model(model, name):
    assert folders.variant(model) == name


def test_a_name_is_taken_apart_again():
    gated = {"network": {"attention": {"class_path": "Gated"}}}
    for model in ({}, gated, {"network": {"attention": {"class_path": "Gated"}, "global_pool": "avg"}}):
        name = folders.run_name("my-digits", "modern", model)
        assert name.startswith("my-digits-modern")
        assert folders.split_name(name, model) == ("my-digits", name.removeprefix("my-digits-"))
    # Of a run of an earlier release, whose name had no kind.
    assert folders.split_name("my-digits-modern", gated) == ("my-digits", "modern")
