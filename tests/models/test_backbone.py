"""Backbone: the dilated ResNet of Section 5.1 against torchvision and against plain functional calls."""
import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from easydict import EasyDict
from material import MODEL, RELEASED, SHARED

from models.backbone import MEAN, STD, Backbone, FrameCache, Pyramid
from models.backbone_weights import load_pyramid
from models.vipmt import build
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.config import load_config

REAL_WEIGHTS = SHARED / "data" / "weights" / "resnet50_imagenet_keras_to_layer3.pth"
BLOCKS = (3, 4, 6, 3)
DILATIONS = ((1, 1, 1), (1, 1, 1, 1), (1, 2, 2, 2, 2, 2), (2, 4, 4))     # of every block's 3x3 convolution


def randomise_norms(module):
    """Batch norms with statistics that matter; small gains keep fifty layers in range."""
    for name, buffer in [*module.named_buffers(), *module.named_parameters()]:
        if ("bn" in name or "downsample.1" in name) and buffer.is_floating_point():
            with torch.no_grad():
                buffer.uniform_(0.3, 0.9) if name.endswith(("weight", "running_var")) else buffer.normal_(0, 0.1)


def small_config(*overrides):
    """The released encoder and little behind it"""
    return load_config([RELEASED], [*MODEL, "backbone.name=resnet50", *overrides])


def norm(state, x, name):
    weight, bias, mean, var = (state[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var"))
    scale = weight / (var + 1e-5).sqrt()
    return x * scale[:, None, None] + (bias - mean * scale)[:, None, None]


def bottleneck(state, x, name, stride, dilation, stride_in_1x1):
    first, second = (stride, 1) if stride_in_1x1 else (1, stride)
    y = norm(state, F.conv2d(x, state[f"{name}.conv1.weight"], stride=first), f"{name}.bn1").relu()
    y = F.conv2d(y, state[f"{name}.conv2.weight"], stride=second, padding=dilation, dilation=dilation)
    y = norm(state, y, f"{name}.bn2").relu()
    y = norm(state, F.conv2d(y, state[f"{name}.conv3.weight"]), f"{name}.bn3")
    if f"{name}.downsample.0.weight" in state:
        x = norm(state, F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
    return (x + y).relu()


def reference_levels(state, x, stem, stride_in_1x1=False):
    """The network in functional calls on a state dict, RGB in [0, 1]  ->  the four levels."""
    x = (x - torch.tensor(MEAN).to(x)[:, None, None]) / torch.tensor(STD).to(x)[:, None, None]
    if stem == "deep":
        for i, stride in ((1, 2), (2, 1), (3, 1)):
            x = norm(state, F.conv2d(x, state[f"conv{i}.weight"], stride=stride, padding=1), f"bn{i}").relu()
    else:
        x = norm(state, F.conv2d(x, state["conv1.weight"], stride=2, padding=3), "bn1").relu()
    x = F.max_pool2d(x, 3, 2, 1)
    levels = []
    for stage in range(4):
        for block in range(BLOCKS[stage]):
            stride = 2 if stage == 1 and block == 0 else 1
            x = bottleneck(state, x, f"layer{stage + 1}.{block}", stride, DILATIONS[stage][block], stride_in_1x1)
        levels.append(x)
    return levels


def assert_levels_match(features, expected):
    for found, level in zip(features.levels(), expected, strict=True):
        assert level.abs().max() > 1e-3          # the comparison is about something
        torch.testing.assert_close(found.flatten(0, 1), level, rtol=1e-9, atol=1e-11)


@pytest.fixture(scope="module")
def images():
    return torch.randn(1, 2, 3, 35, 48, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# Folding

def levels_of(backbone, images):
    with torch.no_grad():
        return [x.flatten(0, 1) for x in backbone(images).levels()]


def test_folded_normalisation_equals_the_plain_one_in_float32(images):
    torch.manual_seed(2)
    backbone = Backbone().eval()
    randomise_norms(backbone)
    with torch.no_grad():
        expected = reference_levels(backbone.body.state_dict(), images[0].float(), "deep")
    for found, level in zip(levels_of(backbone, images.float()), expected, strict=True):
        assert (found - level).abs().max() <= 1e-5 * level.abs().max()


def test_folded_copy_follows_loading_moving_and_changes_in_place(images):
    torch.manual_seed(3)
    backbone, other = Backbone(stem="plain").eval(), Backbone(stem="plain").eval()
    first = levels_of(backbone, images.float())
    assert backbone.fast_body.current() is backbone.fast_body.current()          # made once
    backbone.load_state_dict(other.state_dict())
    loaded = levels_of(backbone, images.float())
    assert not torch.allclose(loaded[3], first[3])
    torch.testing.assert_close(loaded, levels_of(other, images.float()))
    with torch.no_grad():
        backbone.body.layer4[2].bn3.bias += 1
    assert not torch.allclose(levels_of(backbone, images.float())[3], loaded[3])
    assert levels_of(backbone.double(), images)[3].dtype == torch.float64


def test_folded_copy_stays_out_of_checkpoints_and_copies():
    backbone = Backbone(stem="plain").eval()
    names = set(backbone.state_dict())
    levels_of(backbone, torch.zeros(1, 1, 3, 32, 32))
    assert set(backbone.state_dict()) == names and "body.bn1.running_mean" in names
    twin = copy.deepcopy(backbone)
    with torch.no_grad():
        twin.body.conv1.weight.zero_()
    assert not torch.equal(*(levels_of(x, torch.ones(1, 1, 3, 32, 32))[0] for x in (backbone, twin)))


def test_weights_that_are_unfrozen_after_all_are_used_themselves():
    backbone = Backbone(stem="plain").eval()
    backbone.body.layer4.requires_grad_(True)
    assert backbone.fast_body.current() is backbone.body


def test_a_copy_made_in_inference_mode_serves_training_too(images):
    backbone = Backbone(stem="plain").eval()
    with torch.inference_mode():
        backbone(images.float())
    head = torch.nn.Conv2d(2048, 1, 1)
    head(backbone(images.float()).c5[0]).sum().backward()
    assert head.weight.grad is not None


def test_a_trained_encoder_keeps_the_plain_layout():
    """Channels last, the weights of a strided 1x1 convolution of 12 channels corrupt memory when they get gradients."""
    backbone = Backbone(name="tiny", width=12, trained=True)
    levels = backbone(torch.randn(1, 12, 3, 72, 120)).levels()
    assert all(x.is_contiguous() for x in levels)
    sum(x.sum() for x in levels).backward()
    assert all(p.grad.isfinite().all() for p in backbone.parameters())


def test_the_normalisation_stays_out_of_checkpoints():
    assert not {"mean", "std"} & {*Backbone(name="tiny", width=8).state_dict()}


# The ResNets

def test_plain_stem_equals_torchvision(images):
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True]).double().eval()
    randomise_norms(theirs)
    ours = Backbone(name="resnet50", stem="plain").double()
    ours.body.load_state_dict({k: v for k, v in theirs.state_dict().items()
                               if not k.startswith("fc.") and not k.endswith("num_batches_tracked")})
    with torch.no_grad():
        mean, std = (torch.tensor(values).double()[:, None, None] for values in (MEAN, STD))
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1((images[0] - mean) / std))))
        expected = []
        for stage in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
            x = stage(x)
            expected.append(x)
        assert_levels_match(ours(images), expected)


@pytest.mark.parametrize(("stem", "stride_in_1x1"), [("deep", False), ("plain", True)])
def test_resnet_equals_the_plain_functional_network(images, stem, stride_in_1x1):
    torch.manual_seed(0)
    backbone = Backbone(name="resnet50", stem=stem, stride_in_1x1=stride_in_1x1).double()
    randomise_norms(backbone.body)
    with torch.no_grad():
        assert_levels_match(backbone(images), reference_levels(
            backbone.body.state_dict(), images[0], stem, stride_in_1x1))


def test_resnet101_has_twenty_three_blocks_in_stage_three():
    with torch.device("meta"):
        body = Backbone(name="resnet101", stem="plain").body
    assert [len(getattr(body, f"layer{i}")) for i in (1, 2, 3, 4)] == [3, 4, 23, 3]


def test_c4_has_no_stage_four(images):
    with torch.device("meta"):
        backbone = Backbone(name="resnet50", high_level="c4")
    assert not hasattr(backbone.body, "layer4") and backbone.channels == (256, 512, 1024)
    tiny = Backbone(name="tiny", width=8, high_level="c4")
    features = tiny(images.float())
    assert features.c5 is None and features.c4.shape[2] == tiny.channels[2] == 32


# All encoders

def test_levels_have_strides_of_four_and_eight_at_any_size():
    backbone = Backbone(name="tiny", width=8)
    for height, width in ((240, 424), (36, 50)):
        features = backbone(torch.zeros(1, 1, 3, height, width))
        quarter, eighth = ((-(-height // n), -(-width // n)) for n in (4, 8))
        assert features.c2.shape[-2:] == quarter
        assert [tuple(x.shape[-2:]) for x in features.levels()[1:]] == [eighth] * 3


def test_frozen_backbone_stays_in_eval_and_builds_no_graph(images):
    frozen = Backbone(name="tiny", width=8).train()
    assert not any(m.training for m in frozen.modules())
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not frozen(images.float().requires_grad_()).c5.requires_grad


def test_trained_backbone_trains_and_obeys_no_grad(images):
    trained = Backbone(name="tiny", width=8, trained=True).train()
    assert trained.training and trained(images.float()).c2.requires_grad
    with torch.no_grad():
        assert not trained(images.float()).c2.requires_grad


def test_frames_are_encoded_independently(images):
    backbone = Backbone(name="tiny", width=8).double()
    together, alone = backbone(images), [backbone(images[:, t:t + 1]) for t in (0, 1)]
    for level, *single in zip(together.levels(), *(x.levels() for x in alone), strict=True):
        torch.testing.assert_close(level, torch.cat(single, dim=1), rtol=0, atol=1e-12)


# Weights

def file_of_zeros(path, **arguments):
    """A state dict with the names and shapes of torchvision's resnet50, a few bytes on the disk."""
    with torch.device("meta"):
        shapes = torchvision.models.resnet50(**arguments).state_dict()
    save_checkpoint(path, {k: torch.zeros(()).expand(v.shape) for k, v in shapes.items()})
    return path


@pytest.mark.skipif(not REAL_WEIGHTS.is_file(), reason="needs ImageNet weights")
def test_real_weights_load_strictly():
    cfg = small_config(f"backbone.weights={REAL_WEIGHTS}", "backbone.stem=plain", "backbone.stride_in_1x1=true",
                       "model.high_level=c4")
    body = build(cfg, pretrained=True).backbone.body
    stored = torch.load(REAL_WEIGHTS, weights_only=True)
    for name, tensor in body.state_dict().items():
        assert torch.equal(tensor, stored[name]), name
    with pytest.raises(ValueError, match="model.high_level=c4"):
        build(small_config(f"backbone.weights={REAL_WEIGHTS}", "backbone.stem=plain"), pretrained=True)


def test_classifier_and_counters_of_a_file_are_left_out(tmp_path):
    path = file_of_zeros(tmp_path / "resnet50.pth")
    cfg = small_config(f"backbone.weights={path}", "backbone.stem=plain")
    assert not build(cfg, pretrained=True).backbone.body.conv1.weight.any()


def test_file_of_a_parallel_run_loads(tmp_path):
    path = file_of_zeros(tmp_path / "resnet50.pth")
    state = load_checkpoint(path)
    save_checkpoint(path, {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}})
    cfg = small_config(f"backbone.weights={path}", "backbone.stem=plain")
    assert not build(cfg, pretrained=True).backbone.body.conv1.weight.any()


def test_wrong_stem_is_named_with_its_fix(tmp_path):
    path = file_of_zeros(tmp_path / "resnet50.pth")
    with pytest.raises(ValueError, match="backbone.stem=plain is this file's stem"):
        build(small_config(f"backbone.weights={path}", "backbone.stem=deep"), pretrained=True)


def test_other_depth_is_refused(tmp_path):
    path = file_of_zeros(tmp_path / "resnet50.pth")
    cfg = small_config(f"backbone.weights={path}", "backbone.stem=plain", "backbone.name=resnet101")
    with pytest.raises(ValueError, match="does not fit resnet101"):
        build(cfg, pretrained=True)


def test_missing_file_names_torchvision_as_the_way_out(tmp_path):
    cfg = small_config(f"backbone.weights={tmp_path / 'none.pth'}")
    with pytest.raises(FileNotFoundError, match="backbone.weights=torchvision backbone.stem=plain"):
        build(cfg, pretrained=True)
    build(cfg)       # a test restores a checkpoint: it asks for no pretrained file


def test_impossible_weights_are_refused():
    with pytest.raises(ValueError, match="set backbone.weights=none"):
        build(small_config("backbone.name=tiny", "backbone.width=8", "backbone.weights=torchvision"), pretrained=True)
    with pytest.raises(ValueError, match="set backbone.stem=plain"):
        build(small_config("backbone.weights=torchvision", "backbone.stem=deep"), pretrained=True)


# FrameCache

class CountingEncoder:
    def __init__(self):
        self.frames = 0

    def __call__(self, frames):
        self.frames += len(frames)
        return [2 * frames, frames.mean((-2, -1), keepdim=True)]


def test_cache_encodes_only_new_frames_and_returns_the_same():
    cache, encoder, frames = FrameCache(8), CountingEncoder(), torch.randn(5, 3, 4, 6)
    order = [0, 1, 1, 2]
    for found, true in zip(cache.encode(frames[order], encoder), CountingEncoder()(frames[order]), strict=True):
        torch.testing.assert_close(found, true)
    assert encoder.frames == 3                        # the frame that came twice counts once
    found = cache.encode(frames[[2, 3, 0]], encoder)[0]
    assert torch.equal(found, 2 * frames[[2, 3, 0]]) and encoder.frames == 4


def test_cache_is_bounded_and_forgets_the_oldest_use():
    cache, encoder, frames = FrameCache(3), CountingEncoder(), torch.randn(6, 3, 4, 6)
    assert torch.equal(cache.encode(frames, encoder)[0], 2 * frames)      # more than it may keep
    assert len(cache.entries) == 3
    cache.encode(frames[3:4], encoder)                # 3 is used again, so 4 is now the oldest
    cache.encode(frames[:1], encoder)
    before = encoder.frames
    cache.encode(frames[[3, 5, 0]], encoder)
    assert encoder.frames == before and len(cache.entries) == 3
    cache.encode(frames[4:5], encoder)
    assert encoder.frames == before + 1


def test_cached_frame_does_not_hold_on_to_its_batch():
    cache, frames = FrameCache(2), torch.randn(50, 3, 4, 6)
    cache.encode(frames, CountingEncoder())
    for levels in cache.entries.values():
        assert all(level.untyped_storage().nbytes() == level.nbytes for level in levels)


def test_cached_features_survive_changes_of_what_was_returned():
    cache, encoder, frames = FrameCache(4), CountingEncoder(), torch.randn(2, 3, 4, 6)
    cache.encode(frames, encoder)[0].zero_()
    assert torch.equal(cache.encode(frames, encoder)[0], 2 * frames)


def test_cache_tells_a_frame_from_its_transpose():
    """Two black frames of different shape have the same bytes."""
    cache, encoder = FrameCache(4), CountingEncoder()
    cache.encode(torch.zeros(1, 3, 4, 6), encoder)
    assert cache.encode(torch.zeros(1, 3, 6, 4), encoder)[0].shape == (1, 3, 6, 4)


def test_cache_never_hands_half_precision_to_a_full_precision_call(images):
    """Training encodes under autocast, validation and test do not."""
    backbone, frame = Backbone(name="tiny", width=8, cache_frames=4), images[:, :1].float()
    with torch.autocast("cpu", torch.bfloat16):
        backbone(frame)
    assert backbone(frame).c4.dtype == torch.float32


def test_backbone_with_cache_returns_the_same_features(images):
    torch.manual_seed(0)
    plain = Backbone(name="tiny", width=8).double()
    cached = Backbone(name="tiny", width=8, cache_frames=3).double()
    cached.load_state_dict(plain.state_dict())
    clips = images[:, [0, 1, 0]], images[:, [1]], images[:, [1, 0]]
    for clip in clips:
        for a, b in zip(plain(clip).levels(), cached(clip).levels(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def test_trained_backbone_never_caches():
    assert Backbone(name="tiny", width=8, trained=True, cache_frames=4).cache is None


# -- Pyramid ----------------------------------------------------------------------------------------------------------

def test_pyramid_is_torchvisions_resnet_at_four_strides():
    torch.manual_seed(0)
    theirs, images = torchvision.models.resnet18().eval(), torch.rand(2, 3, 64, 96)
    ours = Pyramid(name="resnet18")
    ours.body.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")})
    mean, deviation = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        levels, body = ours.train()(images), theirs
        x = body.maxpool(body.relu(body.bn1(body.conv1((images - mean) / deviation))))
        for i, level in enumerate(levels, 1):
            x = getattr(body, f"layer{i}")(x)
            torch.testing.assert_close(level, x)
    assert [tuple(level.shape[-2:]) for level in levels] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_caffe2_flavour_is_bgr_minus_a_mean():
    image = torch.rand(1, 3, 32, 32)
    ours = Pyramid(name="resnet18", flavour="caffe2").normalise(image)
    for channel, (source, mean) in enumerate(zip((2, 1, 0), (102.9801, 115.9465, 122.7717), strict=True)):
        torch.testing.assert_close(ours[0, channel], 255 * image[0, source] - mean)


@pytest.mark.parametrize("first", [False, True])
def test_stride_of_the_pyramid_sits_where_it_is_wanted(first):
    with torch.device("meta"):
        block = Pyramid(stride_in_1x1=first).body.layer3[0]
    assert (block.conv1.stride, block.conv2.stride) == (((2, 2), (1, 1)) if first else ((1, 1), (2, 2)))


def test_a_mask_rcnn_file_is_read_by_name_and_a_short_one_says_what_to_set(tmp_path):
    torch.manual_seed(0)
    body = Pyramid(name="resnet18").body.state_dict()
    file, cfg = tmp_path / "detector.pth", EasyDict(name="resnet18", weights=str(tmp_path / "detector.pth"))
    torch.save({f"backbone.body.{k}": v for k, v in body.items()} | {"rpn.head.weight": torch.ones(1)}, file)
    ours = Pyramid(name="resnet18")
    load_pyramid(ours, cfg)
    assert all(torch.equal(value, body[name]) for name, value in ours.body.state_dict().items())
    torch.save({k: v for k, v in body.items() if not k.startswith("layer4.")}, file)
    with pytest.raises(ValueError, match=r"(?s)resnet18: \d+ tensors differ, first layer4.*high_level=c4"):
        load_pyramid(ours, cfg)
    load_pyramid(Pyramid(name="resnet18", high_level="c4"), cfg)
    with pytest.raises(FileNotFoundError, match="backbone.weights: no file"):
        load_pyramid(ours, EasyDict(name="resnet18", weights="nowhere.pth"))


def test_stage_two_trains_the_pyramid_from_layer2_on():
    model = Pyramid(name="resnet18", trained=True)
    assert {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad} == {
        "layer2", "layer3", "layer4"}
    assert not any(module.training for module in model.train().modules())


def test_standardised_channels_have_the_mean_and_deviation_of_all_training_frames_so_far():
    torch.manual_seed(0)
    plain = Backbone(name="tiny", width=8).eval()
    norms = Backbone(name="tiny", width=8, standardise=True)
    norms.body.load_state_dict(plain.body.state_dict())
    batches = [torch.rand(2, 3, 3, 48, 80) for _ in range(3)]
    norms.train()
    for images in batches:
        norms(images)
    assert not norms.body.training
    seen = torch.cat([plain(images).c3 for images in batches]).double()               # (6, 3, C, h, w)
    mean, deviation = seen.mean((0, 1, 3, 4)), seen.std((0, 1, 3, 4), correction=0)
    new = torch.rand(1, 2, 3, 48, 80)
    expected = (plain(new).c3 - mean[:, None, None]) / deviation.clamp(min=1e-3)[:, None, None]
    again = Backbone(name="tiny", width=8, standardise=True).eval()
    again.load_state_dict(norms.state_dict())
    for one in (norms.eval(), again):
        torch.testing.assert_close(one(new).c3.double(), expected, rtol=1e-3, atol=1e-3)
    assert norms.standard[1].batches == 3
