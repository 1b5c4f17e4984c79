"""From the shipped files to a run, and answers to problems of one's own."""

import csv
from pathlib import Path

import pytest

from vitlocal.cli import main

SMALL = [
    "--data.operators=2",
    "--data.p=3",
    "--data.train_size=40",
    "--data.val_size=8",
    "--data.test_size=8",
    "--data.batch_size=8",
    "--model.network.embed_dim=16",
    "--model.network.depth=1",
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]


def test_a_run_of_the_shipped_files_and_its_answers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ["--config", "arithmetic.yaml", "--config", "chain.yaml", *SMALL]
    main(["fit", *given])
    (run,) = Path("lightning_logs").glob("arithmetic-chain-*/version_0")
    with (run / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["train/loss"]) > 0 and 0 <= float(row["val/acc1"]) <= 1
    with (run / "heads.csv").open() as file:
        assert {"first_mass", "previous_mass", "offset_peak", "mad_share"} <= {*next(csv.DictReader(file))}
    Path("mine.txt").write_text("(1 + 2) * 2\n\n1-1-2 =\n")
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    main(["predict", *given, f"--ckpt_path={checkpoint}", "--problems=mine.txt"])
    (answers,) = Path("lightning_logs").rglob("answers.txt")
    first, second = answers.read_text().splitlines()
    assert first.startswith("( 1 + 2 ) * 2 = ") and second.startswith("1 - 1 - 2 = ")
    for content, says in (("1 + 7", "mine.txt, line 1: 7 is no token"), ("\n", "mine.txt has none")):
        Path("mine.txt").write_text(content)
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main(["predict", *given, f"--ckpt_path={checkpoint}", "--problems=mine.txt"])
        assert says in capsys.readouterr().err
