import pytest

from tests.study.fake import config, write_run
from vitlocal.compress.outcome import Timed, outcome
from vitlocal.compress.report import write_table
from vitlocal.errors import InputError
from vitlocal.study.compare import compare
from vitlocal.study.quantized import row


def write(folder):
    import torch

    labels = torch.tensor([0, 1, 1, 0])
    right, wrong = torch.eye(2)[labels], torch.eye(2)[labels].flip(1)
    half = torch.cat([right[:2], wrong[2:]])
    folder.mkdir(parents=True)
    rows = [outcome("fp32", right, labels, right), outcome("int8", half, labels, right, seed=0)]
    rows += [outcome("w8a8", logits, labels, right, seed=seed) for seed, logits in enumerate((right, half))]
    rows += [outcome("layer", wrong, labels, right, "block 0", 0)]
    write_table(folder / "quantize.csv", rows)
    timed = [Timed(model, size, batch, 1, 5, ms * batch, 0, 0) for batch in (1, 128)
             for model, size, ms in (("fp32", 400, 2 + batch), ("int8", 100, 1))]  # fmt: skip
    write_table(folder / "latency.csv", timed)


def test_what_a_run_in_8_bits_loses(tmp_path):
    write(tmp_path / "q")
    assert row(tmp_path / "q") == {
        "acc1_fp32": 1.0,
        "acc1_w8a8": 0.75,
        "acc1_int8": 0.5,
        "int8_latency": 1 / 130,
        "int8_size": 0.25,
    }
    assert row(tmp_path / "nowhere") == {}
    (tmp_path / "q" / "latency.csv").write_text("model,batch\n")
    with pytest.raises(InputError, match=r"latency\.csv can't be read"):
        row(tmp_path / "q")


def test_compare_shows_it(tmp_path):
    run = write_run(tmp_path / "logs" / "digits-modern" / "version_0", config())
    write(run / "quantize")
    compare([run], tmp_path / "out")
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "best accuracy, int8" in summary and "file, int8 over fp32" in summary
