"""Every image exactly once, whatever the number of processes, and from anywhere in an epoch."""

import numpy as np
import pytest
import torch

from vitlocal.data import BatchDataset, Images
from vitlocal.data.dataset import identity
from vitlocal.data.samplers import PADDING, EpochSampler, EvaluationSampler, TrainingLoader
from vitlocal.errors import InputError


def dataset(count):
    pixels = np.zeros((count, 1, 2, 2), dtype=np.uint8)
    return BatchDataset(Images(pixels, np.arange(count) % 3))


def loader(count, batch_size=4, processes=1, rank=0, **options):
    data = dataset(count)
    sampler = EpochSampler(data, processes, rank, seed=5)
    return TrainingLoader(data, batch_size, sampler=sampler, collate_fn=identity, drop_last=True, **options)


def indices(batches):
    return [batch["index"].tolist() for batch in batches]


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 4, 13, 30, 257])
def test_evaluation_sees_every_image_once_in_equal_shares(count, processes):
    shares = [list(EvaluationSampler(range(count), processes, rank)) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(index for share in shares for index in share if index != PADDING) == list(range(count))
    assert sum(share.count(PADDING) for share in shares) < processes
    # Batches of all processes together are the next ones in order, so limit_val_batches takes the first.
    dealt = [index for turn in zip(*shares, strict=True) for index in turn if index != PADDING]
    assert dealt == list(range(count))


def test_padding_is_marked_in_the_batch():
    data = BatchDataset(dataset(7).images, np.array([2, 4, 6]))
    batch = data.__getitems__([1, PADDING, 2])
    assert batch["index"].tolist() == [4, -1, 6] and batch["label"].tolist() == [1, -1, 0]
    # What it was made from is as before.
    assert data.positions.tolist() == [2, 4, 6] and data.images.labels.min() == 0


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("count", [3, 13, 30])
def test_training_sees_no_image_twice(count, processes):
    shares = [list(EpochSampler(range(count), processes, rank, seed=1)) for rank in range(processes)]
    assert {len(share) for share in shares} == {count // processes}
    seen = [index for share in shares for index in share]
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(count))


@pytest.mark.parametrize("counts", [[90, 9, 1], [5, 5, 5], [1, 1, 20, 2], [7]])
@pytest.mark.parametrize("processes", [1, 3])
def test_balanced_classes_come_equally_often(counts, processes):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    orders = []
    for epoch in range(4):
        samplers = [EpochSampler(labels, processes, rank, seed=3, labels=labels) for rank in range(processes)]
        for sampler in samplers:
            sampler.set_epoch(epoch)
        shares = [list(sampler) for sampler in samplers]
        assert shares == [list(sampler) for sampler in samplers]
        assert {len(share) for share in shares} == {len(labels) // processes}
        seen = np.array([index for share in shares for index in share])
        drawn = np.bincount(labels[seen], minlength=len(counts))
        # Dealt out, fewer than one a process are left over.
        assert drawn.max() - drawn.min() <= 1 + (processes > 1) * (processes - 1)
        for label in range(len(counts)):
            repeats = np.bincount(seen, minlength=len(labels))[labels == label]
            assert repeats.max() - repeats.min() <= 1 + (processes > 1) * (processes - 1)
        orders.append(seen.tolist())
    assert len({tuple(order) for order in orders}) == 4


def test_balanced_epochs_resume_where_they_were():
    labels = np.array([0] * 20 + [1] * 3)
    whole, resumed = (EpochSampler(labels, seed=1, labels=labels) for _ in range(2))
    resumed.first = 8
    assert list(resumed) == list(whole)[8:]


def test_a_class_that_is_missing_is_no_class():
    labels = np.array([0, 0, 0, 2, 2, 2])
    assert sorted(EpochSampler(labels, seed=1, labels=labels)) == list(range(6))


def test_who_is_left_out_changes():
    sampler, left_out = EpochSampler(range(5), 2, 0, seed=1), set()
    other = EpochSampler(range(5), 2, 1, seed=1)
    for epoch in range(20):
        sampler.set_epoch(epoch)
        other.set_epoch(epoch)
        left_out |= set(range(5)) - set(sampler) - set(other)
    assert left_out == set(range(5))


def test_fewer_images_than_processes():
    with pytest.raises(InputError, match="2 training images for 3 processes"):
        EpochSampler(range(2), 3)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_a_loader_resumes_with_the_next_batch(workers, processes, done):
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    for rank in range(processes):
        whole = loader(30, processes=processes, rank=rank)
        whole.sampler.set_epoch(2)
        this_epoch = indices(whole)
        whole.sampler.set_epoch(3)
        next_epoch = indices(whole)
        interrupted = loader(30, processes=processes, rank=rank)
        interrupted.sampler.set_epoch(2)
        batches = iter(interrupted)
        for _ in range(done):
            next(batches)
        resumed = loader(30, processes=processes, rank=rank, **options)
        resumed.load_state_dict(interrupted.state_dict())
        batches = iter(resumed)  # before the epoch is set, as Lightning does
        resumed.sampler.set_epoch(2)
        assert indices(batches) == this_epoch[done:]
        assert len(resumed) == len(this_epoch)
        resumed.sampler.set_epoch(3)
        assert indices(resumed) == next_epoch


def test_a_position_counts_for_its_own_epoch_only():
    first = loader(30)
    list(first)
    second = loader(30)
    second.load_state_dict(first.state_dict())
    second.sampler.set_epoch(1)
    assert len(indices(second)) == 7


def test_another_division_is_refused_within_an_epoch_only():
    first = loader(30)
    batches = iter(first)
    next(batches)
    with pytest.raises(InputError, match="batches of 4 images on 1 processes, not 2 images on 2"):
        loader(30, batch_size=2, processes=2).load_state_dict(first.state_dict())
    list(batches)
    loader(30, batch_size=4, processes=2).load_state_dict(first.state_dict())


def test_a_pass_leaves_the_global_random_numbers_alone(small_data):
    small_data.prepare_data()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    for made in (small_data.train_dataloader(), small_data.val_dataloader()):
        list(made)
    assert torch.rand(1) == expected
