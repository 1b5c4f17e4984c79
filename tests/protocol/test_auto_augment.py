import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.autoaugment import AutoAugmentPolicy

from tests.protocol.helpers import close_to, make_images, torchvision_operation
from vitlocal.errors import InputError
from vitlocal.protocol import AutoAugment
from vitlocal.protocol.auto_augment import OPERATIONS, magnitude_table

POLICIES = ("cifar10", "imagenet", "svhn")
SIGNED = {
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("policy", POLICIES)
def test_policy_is_torchvisions(policy):
    assert AutoAugment(policy).sub_policies == v2.AutoAugment(AutoAugmentPolicy(policy))._policies


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (13, 21)])
def test_magnitudes_are_torchvisions(size):
    space = v2.AutoAugment._AUGMENTATION_SPACE
    assert set(space) == set(OPERATIONS)
    assert {name for name, (_, signed) in space.items() if signed} == SIGNED
    for name, ours in zip(OPERATIONS, magnitude_table(*size), strict=True):
        magnitudes = space[name][0](10, *size)
        assert ours.tolist() == ([0.0] * 10 if magnitudes is None else magnitudes.tolist()), name


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["random", "constant", "dark", "ramp"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_gives_torchvisions_pixels(name, kind, channels):
    levels = magnitude_table(17, 24)[list(OPERATIONS).index(name)]
    magnitudes = torch.cat([levels, -levels]) if name in SIGNED else levels
    images = make_images(kind, (len(magnitudes), channels, 17, 24))
    result = OPERATIONS[name](images, magnitudes)
    expected = [torchvision_operation(x, name, m) for x, m in zip(images, magnitudes.tolist(), strict=True)]
    assert torch.equal(result, torch.stack(expected))


def slow_auto_augment(component, images, plan):
    """Each image by itself through torchvision's operations, following the plan."""
    space = v2.AutoAugment._AUGMENTATION_SPACE
    results = []
    for i, image in enumerate(images):
        for step, (name, _, level) in enumerate(component.sub_policies[int(plan.sub_policy[i])]):
            if plan.applied[i, step]:
                magnitudes_of, signed = space[name]
                magnitude = 0.0 if level is None else float(magnitudes_of(10, *image.shape[1:])[level])
                magnitude *= float(plan.sign[i, step]) if signed else 1
                image = torchvision_operation(image, name, magnitude)
        results.append(image)
    return torch.stack(results)


@pytest.mark.parametrize("size", [(300, 3, 32, 32), (300, 1, 28, 28), (200, 3, 15, 22), (1, 3, 32, 32)])
@pytest.mark.parametrize("policy", POLICIES)
def test_whole_batch_equals_a_slow_loop(policy, size):
    component = AutoAugment(policy)
    images = make_images("random", size) // 2 + make_images("ramp", size) // 3
    batch = {"image": images}
    before = images.clone()
    component.apply(batch, generator(3))
    expected = slow_auto_augment(component, images, component.draw(len(images), generator(3)))
    assert torch.equal(batch["image"], expected)
    assert torch.equal(images, before)  # the caller's tensor may be the data set itself


def test_non_contiguous_batch():
    images = make_images("random", (50, 16, 18, 3)).permute(0, 3, 1, 2)
    strided, contiguous = {"image": images}, {"image": images.contiguous()}
    AutoAugment().apply(strided, generator())
    AutoAugment().apply(contiguous, generator())
    assert torch.equal(strided["image"], contiguous["image"])


@pytest.mark.parametrize("policy", POLICIES)
def test_the_plan_has_the_policys_distribution(policy):
    component = AutoAugment(policy)
    trials = 100_000
    plan = component.draw(trials, generator(5))
    for number, pair in enumerate(v2.AutoAugment(AutoAugmentPolicy(policy))._policies):
        drawn = plan.sub_policy == number
        count = int(drawn.sum())
        assert close_to(count, trials, 1 / 25)
        for step, (_, probability, _) in enumerate(pair):
            assert close_to(int(plan.applied[drawn, step].sum()), count, probability)
        both = int(plan.applied[drawn].all(dim=1).sum())
        assert close_to(both, count, pair[0][1] * pair[1][1])  # the two are independent
    assert set(plan.sign.unique().tolist()) == {-1.0, 1.0}
    for step in range(2):
        assert close_to(int((plan.sign[:, step] > 0).sum()), trials, 0.5)
    assert close_to(int((plan.sign[:, 0] == plan.sign[:, 1]).sum()), trials, 0.5)
    assert close_to(int((plan.sign[:, 0] > 0)[plan.applied[:, 0]].sum()), int(plan.applied[:, 0].sum()), 0.5)


def test_unknown_policy():
    with pytest.raises(InputError, match=r"policy='cifar'.*cifar10, imagenet, svhn"):
        AutoAugment("cifar")
