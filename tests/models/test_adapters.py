"""Probabilities and statistics against each library's own attention output."""

import copy
import json

import pytest
import timm
import torch
import torch.nn.functional as F
import transformers
from timm.utils.attention_extract import AttentionExtract
from torch.nn.functional import normalize
from torchvision import models

from vitlocal.errors import InputError
from vitlocal.heads import find_attention, head_statistics, observe
from vitlocal.heads.collector import HeadCollector
from vitlocal.models.adapters import Timm, Torchvision, Transformers
from vitlocal.models.subject import Subject

SIZES = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 2}


def subject_of(library, name):
    return Subject.of(library(name), name)


def images_for(subject, count=2):
    generator = torch.Generator().manual_seed(0)
    shape = (count, len(subject.mean), *subject.image_size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def sharpen(network):
    """Random weights attend to all alike: make them tell one key from another."""
    for name, parameter in network.named_parameters():
        if parameter.ndim >= 2 and any(part in name for part in ("qkv", "q_proj", "k_proj", "in_proj")):
            parameter.data = 2 * normalize(parameter.data, dim=1)


def observed(subject, images):
    layers = [[] for _ in find_attention(subject)]
    with torch.no_grad(), observe(subject, [layer.append for layer in layers], chunk_elements=1):
        subject(images)
    assert all(len(layer) == len(images) for layer in layers)  # one image at a time
    return [torch.cat(layer) for layer in layers]


def check(subject, images, expected):
    """Weights, and the statistics of a command's observation, are those of ``expected``."""
    weights = observed(subject, images)
    assert len(weights) == len(expected)
    for own, theirs in zip(weights, expected, strict=True):
        assert own.dtype == torch.float32
        torch.testing.assert_close(own, theirs, atol=1e-6, rtol=1e-3)
    assert weights[0].amax() > 3 / weights[0].shape[-1]  # no test of uniform attention only
    collector = HeadCollector(subject, torch.device("cpu"))
    with torch.no_grad(), collector.batch(images):
        subject(images)
    for layer, theirs in zip(collector.compute(), expected, strict=True):
        means = head_statistics(theirs.double(), subject.geometry)
        for name, values in means.items():
            assert layer[name] == pytest.approx(values.mean(0).tolist(), abs=1e-5, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "prefix", "class_token"),
    [
        ("test_vit", 1, True),
        ("test_vit2", 1, False),  # a register token only
        ("test_vit3", 1, False),
        ("deit_tiny_distilled_patch16_224", 2, True),
    ],
)
def test_timm(name, prefix, class_token):
    subject = subject_of(Timm, name).eval()
    check_timm(subject)
    assert (subject.geometry.num_prefix_tokens, subject.class_token) == (prefix, class_token)


@pytest.mark.parametrize(
    "options",
    [
        {"reg_tokens": 4},
        {"reg_tokens": 3, "class_token": False, "global_pool": "avg"},
        {"qk_norm": True},
        {"global_pool": "map", "class_token": False},
        {"img_size": (96, 160)},
    ],
    ids=lambda options: ",".join(options),
)
def test_timm_variants(options, monkeypatch):
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **given: make(name, **options, **given))
    subject = subject_of(Timm, "test_vit").eval()
    check_timm(subject)
    class_token = options.get("class_token", True)
    assert subject.geometry.num_prefix_tokens == class_token + options.get("reg_tokens", 0)
    assert subject.class_token == class_token


def test_timm_with_rotary_positions(monkeypatch):
    make, options = timm.create_model, {"depth": 2, "img_size": 56}
    monkeypatch.setattr(timm, "create_model", lambda name, **given: make(name, **options, **given))
    subject = subject_of(Timm, "eva02_tiny_patch14_224").eval()
    check_timm(subject)


@pytest.mark.parametrize("options", [{}, {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}])
def test_timm_with_relative_positions(options, monkeypatch):
    make, small = timm.create_model, {"depth": 2, "img_size": 64, "embed_dim": 48, "num_heads": 4}
    monkeypatch.setattr(timm, "create_model", lambda name, **given: make(name, **small, **options, **given))
    subject = subject_of(Timm, "beit_base_patch16_224").eval()
    for name, parameter in subject.named_parameters():
        if "relative_position_bias_table" in name:
            torch.nn.init.normal_(parameter)
    check_timm(subject)


@pytest.mark.parametrize("name", ["vit_relpos_small_patch16_224", "vit_srelpos_small_patch16_224"])
def test_timm_with_a_network_of_relative_positions(name, monkeypatch):
    make, small = timm.create_model, {"depth": 2, "img_size": 64, "embed_dim": 48, "num_heads": 4}
    monkeypatch.setattr(timm, "create_model", lambda name, **given: make(name, **small, **given))
    subject = subject_of(Timm, name).eval()
    check_timm(subject)
    assert subject.geometry.num_prefix_tokens == 0 and not subject.class_token


SAM = {"depth": 2, "img_size": 64, "embed_dim": 48, "num_heads": 4, "global_attn_indexes": ()}


@pytest.mark.parametrize("window", [0, 4])  # none, and one as large as the image
def test_sam_without_windows(window, monkeypatch):
    make, options = timm.create_model, SAM | {"window_size": window}
    monkeypatch.setattr(timm, "create_model", lambda name, **given: make(name, **options, **given))
    subject = subject_of(Timm, "samvit_base_patch16").eval()
    for name, parameter in subject.named_parameters():
        if "rel_pos" in name:
            torch.nn.init.normal_(parameter)
    # Images and heads are in one dimension there.
    check_timm(subject, lambda weights: weights.unflatten(0, (-1, 4)))
    assert subject.geometry.size == (4, 4)


def test_sam_with_windows_is_refused(monkeypatch):
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **given: make(name, **SAM, window_size=2, **given))
    with pytest.raises(InputError, match="each of whose layers attends over all patches"):
        Timm("samvit_base_patch16")


def test_cait_s_layers_of_patches(monkeypatch):
    make, small = timm.create_model, {"depth": 2, "img_size": 64, "embed_dim": 48, "num_heads": 4}
    monkeypatch.setattr(timm, "create_model", lambda name, **given: make(name, **small, **given))
    subject = subject_of(Timm, "cait_xxs24_224").eval()
    sharpen(subject.network)
    images = images_for(subject)
    for block in subject.network.model.blocks:
        torch.nn.init.eye_(block.attn.proj_l.weight)  # else scores of random heads are small
        block.attn.proj_l.weight.data += 0.3 * torch.randn(4, 4)
    network = copy.deepcopy(subject.network.model)
    expected = []
    for block in network.blocks:  # what is mixed after the softmax: the softmax
        block.attn.proj_w.register_forward_pre_hook(
            lambda _, rows: expected.append(rows[0].permute(0, 3, 1, 2))
        )
    with torch.no_grad():
        logits = network((images - subject.mean) / subject.std)
    check(subject, images, expected)
    assert subject.geometry.num_prefix_tokens == 0 and not subject.class_token
    with torch.no_grad():
        torch.testing.assert_close(subject(images), logits)
        x = torch.randn(2, 16, 48)
        attention, rows = subject.network.model.blocks[0].attn, torch.tensor([3, 9])
        torch.testing.assert_close(attention.explicit(x, lambda name, tensor: None), attention(x))
        few = attention.explicit(x, lambda name, tensor: None, rows)
        torch.testing.assert_close(few, attention(x)[:, rows])


def check_timm(subject, shaped=lambda weights: weights):
    sharpen(subject.network)
    images = images_for(subject)
    network = copy.deepcopy(subject.network.model)
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    theirs = AttentionExtract(network, names=["blocks.*.attn.attn_drop"], method="hook")
    with torch.no_grad():
        expected = [shaped(weights) for weights in theirs((images - subject.mean) / subject.std).values()]
    check(subject, images, expected)


def test_timm_normalises_as_its_configuration_says():
    subject = subject_of(Timm, "vit_tiny_patch16_224")
    config = timm.data.resolve_model_data_config(subject.network.model)
    assert subject.mean.flatten().tolist() == pytest.approx([255 * value for value in config["mean"]])
    assert subject.std.flatten().tolist() == pytest.approx([255 * value for value in config["std"]])
    assert subject.image_size == (224, 224) and subject.geometry.size == (14, 14)
    assert subject.geometry.patch_size == (16, 16)


def small_torchvision(monkeypatch):
    monkeypatch.setattr(
        models,
        "get_model",
        lambda name, weights: models.VisionTransformer(48, 8, 2, 4, 32, 48, num_classes=5),
    )
    subject = subject_of(Torchvision, "vit_b_16").eval()
    sharpen(subject.network)
    return subject


def test_torchvision(monkeypatch):
    subject = small_torchvision(monkeypatch)
    images, expected = images_for(subject), []

    def keep(module, inputs, output):
        module_of_its_own = copy.deepcopy(module)
        module_of_its_own._forward_hooks.clear()
        call = module_of_its_own(*inputs, need_weights=True, average_attn_weights=False)
        expected.append(call[1])

    hooks = [
        layer.self_attention.register_forward_hook(keep) for layer in subject.network.model.encoder.layers
    ]
    with torch.no_grad():
        subject(images)
    for hook in hooks:
        hook.remove()
    check(subject, images, expected)
    assert subject.geometry.size == (6, 6) and subject.geometry.num_prefix_tokens == 1
    assert subject.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert subject.std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_in_bfloat16_weights_are_of_the_queries_and_keys_that_are_applied(library, monkeypatch):
    if library == "timm":
        subject = subject_of(Timm, "test_vit").eval()
    elif library == "torchvision":
        subject = small_torchvision(monkeypatch)
        # As on a GPU: there under autocast it isn't taken.
        monkeypatch.setattr(torch.backends.mha, "get_fastpath_enabled", lambda: False)
    else:
        config = transformers.ViTConfig(image_size=24, patch_size=8, **SIZES)
        monkeypatch.setattr(transformers.AutoConfig, "for_model", lambda kind: config)
        subject = subject_of(Transformers, "vit").eval()
    sharpen(subject.network)
    images, expected, fused = images_for(subject), [], F.scaled_dot_product_attention

    def attend(query, key, *args, **kwargs):
        assert query.dtype == torch.bfloat16
        scores = query.double() @ key.double().transpose(-2, -1)
        expected.append((scores / query.shape[-1] ** 0.5).softmax(-1).float())
        return fused(query, key, *args, **kwargs)

    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad(), monkeypatch.context() as patch:
            patch.setattr(F, "scaled_dot_product_attention", attend)
            subject(images)
        weights = observed(subject, images)
    for own, theirs in zip(weights, expected, strict=True):
        torch.testing.assert_close(own, theirs, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ("vit", 1),
        ("deit", 2),
        ("dinov2", 1),
        ("dinov2_with_registers", 5),
        ("dinov3_vit", 1),
        ("ijepa", 0),
        ("vit_msn", 1),
    ],
)
def test_transformers(kind, prefix, tmp_path):
    # The others take square images only, by their own forward.
    image_size = 24 if kind.startswith("dinov2") else [24, 32]
    config = transformers.AutoConfig.for_model(kind, image_size=image_size, patch_size=8, **SIZES)
    network = transformers.AutoModel.from_config(config)
    sharpen(network)
    network.save_pretrained(tmp_path)
    processor = {"image_processor_type": "ViTImageProcessor"}
    processor |= {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 1.0]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    subject = subject_of(Transformers, str(tmp_path)).eval()
    images = images_for(subject)
    theirs = transformers.AutoModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 1.0])
    with torch.no_grad():
        pixels = (images / 255 - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
        expected = theirs(pixels, output_attentions=True).attentions
    check(subject, images, expected)
    assert (
        subject.geometry.size == (3, 3 if kind.startswith("dinov2") else 4)
        and subject.geometry.num_prefix_tokens == prefix
    )
    assert subject.class_token == (kind != "ijepa") and subject.trained
    assert subject.geometry.num_tokens == expected[0].shape[-1]


@pytest.mark.parametrize(
    ("library", "name", "said"),
    [
        (Timm, "vit_tiny_patch16_225", "perhaps .*vit_tiny_patch16_224"),
        (Timm, "swin_tiny_patch4_window7_224", "SwinTransformer: give a plain"),
        (Timm, "vit_tiny_patch16_224.no_such_tag", "can't be made|couldn't be fetched"),
        (Torchvision, "vit_b_15", "perhaps vit_b_16"),
        (Torchvision, "swin_t", "SwinTransformer: give a plain"),
        (Transformers, "no/such/model", "transformers:no/such/model couldn't be fetched"),
    ],
)
def test_what_is_not_supported(library, name, said, monkeypatch):
    with pytest.raises(InputError, match=said):
        library(name, pretrained=False)


def test_a_kind_of_transformers_that_is_not_supported(tmp_path):
    transformers.AutoConfig.for_model("swin").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="of the kind swin, which isn't supported; supported are vit"):
        subject_of(Transformers, str(tmp_path))


def test_weights_that_cannot_be_fetched(monkeypatch):
    def fail(name, weights):
        assert weights == "DEFAULT"
        raise OSError("no network")

    monkeypatch.setattr(models, "get_model", fail)
    with pytest.raises(InputError, match=r"couldn't be fetched \(no network\): give a network"):
        Torchvision("vit_b_16", pretrained=True)
