"""Splits without a sequence in common, kept whole, in batches whose padding is no target."""

import numpy as np
import pytest
import torch

from vitlocal.data import LIS, Arithmetic, EditDistance, Equations
from vitlocal.data.sequences import PAD, Vocabulary
from vitlocal.errors import InputError

SIZES = {"train_size": 300, "val_size": 50, "test_size": 60, "batch_size": 32}


def rows(dataset):
    return {tuple(row) for row in dataset.tokens.tolist()}


@pytest.mark.parametrize("kind", [Arithmetic, Equations, LIS, EditDistance])
def test_splits_are_different_sequences_of_their_sizes(kind, tmp_path):
    data = kind(path=str(tmp_path), **SIZES)
    data.setup()
    train, val, test = (rows(data._datasets[split]) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (300, 50, 60)
    assert not train & val and not train & test and not val & test


def test_few_possible_sequences_are_used_up_and_none_comes_twice(tmp_path):
    # 2 numbers x 3 operations that are possible everywhere, and divisions: less than 20 in all.
    data = Arithmetic(operators=1, p=2, path=str(tmp_path), train_size=6, val_size=2, test_size=2)
    data.setup()
    every = [tuple(row) for dataset in ("train", "val", "test") for row in data._datasets[dataset].tokens]
    assert len(every) == len(set(every)) == 10
    more = Arithmetic(operators=1, p=2, path=str(tmp_path), train_size=60, val_size=2, test_size=2)
    with pytest.raises(InputError, match="of 64 different sequences of arithmetic-chain only 14 were found"):
        more.setup()


def test_sequences_depend_on_the_seed_alone_and_are_kept(tmp_path, monkeypatch):
    made = []
    for seed, folder in ((0, "a"), (0, "b"), (1, "a")):
        data = Arithmetic(path=str(tmp_path / folder), data_seed=seed, **SIZES)
        data.setup()
        made.append(np.array(data._datasets["train"].tokens))
    assert (made[0] == made[1]).all() and (made[0] != made[2]).any()
    monkeypatch.setattr(Arithmetic, "draw", None)  # from now on they are read
    data = Arithmetic(path=str(tmp_path / "a"), data_seed=0, **SIZES)
    data.setup()
    assert (data._datasets["train"].tokens == made[0]).all()
    (file,) = (tmp_path / "b" / "sequences.vitlocal").glob("*.npy")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(InputError, match=r"can't be read.*delete it"):
        Arithmetic(path=str(tmp_path / "b"), data_seed=0, **SIZES).setup()


@pytest.mark.parametrize("form", ["direct", "chain"])
@pytest.mark.parametrize("kind", [Arithmetic, Equations, LIS, EditDistance])
def test_targets_are_what_comes_after_the_problem(kind, form, tmp_path):
    data = kind(form=form, path=str(tmp_path), **SIZES)
    data.setup()
    batch = next(iter(data.val_dataloader()))
    assert batch["tokens"].shape == (32, data.max_length) and batch["tokens"].dtype == torch.int64
    words = data.vocabulary
    for tokens, length, start, end in zip(
        *(batch[name].tolist() for name in ("tokens", "length", "start", "end")), strict=True
    ):
        assert PAD not in tokens[:length] and not any(tokens[length:])
        text = words.text(tokens)
        problem, _, rest = text.partition(words.separator)
        assert words.text(tokens[:start]) == problem + words.separator
        wanted = rest.split() if kind is Arithmetic and form == "direct" else [*rest.split(), "<eos>"]
        assert [words.tokens[token] for token in tokens[start:end]] == wanted
        assert words.problem(problem, "line 1") == tokens[:start]


def test_padding_of_a_batch_has_no_targets(tmp_path):
    data = Arithmetic(path=str(tmp_path), **SIZES)
    data.setup()
    batch = data._datasets["val"].__getitems__([3, -1])
    assert batch["index"].tolist() == [3, -1]
    assert (batch["end"] - batch["start"])[1] == 0 < (batch["end"] - batch["start"])[0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Arithmetic(p=9), "data.p is 9: give a prime"),
        (lambda: Arithmetic(p=211), "data.p is 211: give a prime from 2 to 199"),
        (lambda: Arithmetic(operators=0), "data.operators is 0"),
        (lambda: Equations(variables=6), "data.variables is 6: give a number from 1 to 5"),
        (lambda: LIS(length=125), "data.length is 125: give a number from 2 to 124"),
        (lambda: EditDistance(length=3), "data.length is 3: give a number from 4"),
        (lambda: LIS(train_size=0), "data.train_size is 0"),
        (lambda: LIS(data_seed=-1), "data.data_seed is -1"),
        (lambda: LIS(batch_size=0), "batch_size=0"),
    ],
)
def test_sizes_that_no_sequence_can_have(make, says):
    with pytest.raises(InputError, match=says):
        make()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("(1 + 12) * 3", r"line 2: 12 is no token that the model was trained on: give .* 0\.\.10$"),
        ("1 + x", "line 2: x is no token"),
        ("<eos>", "line 2: <eos> is no token"),
        ("  ", "line 2: there is no problem"),
    ],
)
def test_problems_with_unknown_tokens(text, says):
    with pytest.raises(InputError, match=says):
        Arithmetic().vocabulary.problem(text, "line 2")


def test_a_problem_may_have_its_separator():
    words: Vocabulary = Arithmetic().vocabulary
    assert words.problem("(1+2)*10 =", "line 1") == words.problem("( 1 + 2 ) * 10", "line 1")
    assert words.text(words.problem("1+2", "line 1")) == "1 + 2 ="
    system = Equations(variables=1).vocabulary
    assert system.text(system.problem("2a=10", "line 1")) == "2 a = 10 <sep>"
