"""The fast path against the released manner of running the same weights: equal margins, IoUs, draws and gradients."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from easydict import EasyDict
from small_network import RELEASED, model_of

from dataloaders.episode import Batch, Clip, SupportSet
from models.backbone import Backbone
from models.vipmt.inference import Segmenter
from models.vipmt.model import VIPMT
from models.vipmt.train_step import TrainStep
from tools.workshop.reference_mode import ReferenceNetwork, ReferenceSegmenter, ReferenceTrainStep, frozen_norm
from utils.config import load_config

SIZE = (36, 44)         # no multiples of 8
SWITCHES = {
    "paper": {}, "released": RELEASED, "joint": dict(memory_attention="joint"),
    "all_channels": dict(prior_channels="all"),
    "cumulative": dict(cumulative_prior=True), "memory_in_prior": dict(memory_in_prior=True),
    "cosine": dict(cosine_maps=True), "patch": dict(patch_masks=True), "no_maps": dict(use_maps=False),
    "clip_only": dict(frame_prototype=False), "one_way": dict(communication="one_way"),
}


@pytest.fixture(autouse=True)
def exact():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def video_of(frames=11, shots=2, size=SIZE):
    """Supports and a query video with masks that move: images (T, 3, H, W), masks (T, H, W)."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(shots + frames, 3, *size, generator=generator)
    masks = torch.zeros(shots + frames, *size, dtype=torch.bool)
    for t, mask in enumerate(masks):
        mask[4 + t % 7:24 + t % 5, 6 + t:30 + t] = True
    images += masks[:, None].to(images)
    return images[:shots], masks[:shots], images[shots:], masks[shots:]


def segment(kind, network, video, length=3, min_iou=0.0, clip_length=4, with_truth=False, seed=0):
    """Every clip of the video  ->  margins, ious, remembered of the whole of it, and the generator's next number"""
    support_images, support_masks, images, masks = video
    select = "ground_truth" if with_truth else "predicted"
    rng, memory = np.random.default_rng(seed), SimpleNamespace(length=length, select=select, min_iou=min_iou, keep=40)
    segmenter = kind(network, SupportSet(support_images, support_masks), SimpleNamespace(memory=memory), rng=rng)
    clips = [Clip(x, m[None]) for x, m in zip(images.split(clip_length), masks.split(clip_length), strict=True)]
    parts = [segmenter(segmenter.prepare(clip), clip) for clip in clips]
    ious, remembered = ([p.per_frame.get(name) for p in parts] for name in ("pred_iou", "remembered"))
    ious = None if ious[0] is None else torch.cat(ious)
    return torch.cat([p.margins[0] for p in parts]), ious, torch.cat(remembered), rng.random()


def check_equal(model, video, **settings):
    """Margins and IoUs are returned in float32: the double precision in between keeps their last digits equal."""
    ours, theirs = (segment(kind, model, video, **settings) for kind in (Segmenter, ReferenceSegmenter))
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-6, atol=1e-6 * float(theirs[0].abs().max()))
    if theirs[1] is None:
        assert ours[1] is None
    else:
        torch.testing.assert_close(ours[1], theirs[1], rtol=1e-6, atol=1e-7)
    assert torch.equal(ours[2], theirs[2]) and ours[3] == theirs[3]
    return theirs


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_fast_and_reference_give_equal_margins_and_ious(switches):
    margins, ious, remembered, _ = check_equal(model_of(**switches), video_of())
    assert 0.005 < (margins > 0).double().mean() < 0.99 and remembered.all() and ious.std() > 0


@pytest.mark.parametrize("switches", [{}, RELEASED], ids=["paper", "released"])
def test_they_agree_when_only_reliable_frames_are_remembered(switches):
    model, video = model_of(**switches), video_of()
    middle = float(segment(Segmenter, model, video)[1].median())
    remembered = check_equal(model, video, min_iou=middle)[2]
    assert remembered.any() and not remembered.all()


@pytest.mark.parametrize("switches", [{}, RELEASED], ids=["paper", "released"])
def test_they_agree_with_given_memory_masks(switches):
    check_equal(model_of(**switches), video_of(), with_truth=True, min_iou=2.0)


def test_they_agree_without_memory():
    check_equal(model_of(with_memory=False), video_of())
    check_equal(model_of(), video_of(), length=0)


@pytest.mark.parametrize("switches", [{}, RELEASED], ids=["paper", "released"])
def test_they_agree_on_empty_and_full_masks(switches):
    images, masks, query, truth = video_of(shots=3)
    masks[0], masks[1], truth[1], truth[2] = False, True, False, True
    check_equal(model_of(**switches), (images, masks, query, truth), with_truth=True)


def test_they_agree_where_the_backbone_ends_at_c4():
    check_equal(model_of(high_level="c4"), video_of())


def test_they_agree_on_the_match_of_learned_features_and_a_louder_prior():
    check_equal(model_of(match=True, prior_scale=10), video_of())


@pytest.mark.parametrize("stem", ["deep", "plain"])
def test_frozen_normalisation_after_each_convolution_gives_the_levels_of_the_backbone(stem):
    torch.manual_seed(0)
    backbone = Backbone(name="resnet50", stem=stem)
    randomise_statistics(backbone)
    network = ReferenceNetwork(VIPMT(backbone, None, dim=16, num_layers=1, heads=2, ffn_dim=24).eval())
    images = torch.randn(1, 2, 3, 33, 47)
    expected = network.model.backbone(images).levels()
    for ours, theirs in zip(expected, network.encode(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * float(theirs.abs().max()))


def randomise_statistics(backbone):
    for name, buffer in backbone.named_buffers():
        low = 0.5 if name.endswith(("running_var", "weight")) else -0.2
        buffer.uniform_(low, low + 0.4)


def test_frozen_norm_is_batch_norm_with_fixed_statistics():
    norm = torch.nn.BatchNorm2d(4).eval()
    norm.running_mean.uniform_(-1, 1), norm.running_var.uniform_(0.5, 2)
    torch.nn.init.uniform_(norm.weight), torch.nn.init.uniform_(norm.bias)
    x = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(frozen_norm(norm, x), norm(x))


# -- training ---------------------------------------------------------------------------------------------------------

def batch_of():
    """Two episodes of 2 supports and 3 clips of 2 frames."""
    generator = torch.Generator().manual_seed(7)
    images, masks = torch.randn(2, 8, 3, *SIZE, generator=generator), torch.zeros(2, 8, *SIZE, dtype=torch.bool)
    for t in range(8):
        masks[0, t, 4 + t:20 + t, 8:30], masks[1, t, 10:34, 2 + t:22 + t] = True, True
    images += masks[:, :, None].to(images)
    shown = [[3 * b + t for t in range(6)] for b in range(2)]
    return Batch(images[:, :2], masks[:, :2], images[:, 2:], masks[:, 2:], shown, 2, [1, 5], keys=[(1,), (2,)])


STEPS = {"paper": ("ytvis", {}, False, True), "released": ("released", RELEASED, False, True),
         "trained_backbone": ("ytvis", {}, True, True), "no_memory": ("ytvis", {}, False, False)}


@pytest.mark.parametrize("config, switches, trained, memory", STEPS.values(), ids=STEPS)
def test_a_training_step_gives_equal_losses_and_gradients(config, switches, trained, memory):
    cfg = EasyDict(load_config([f"config/vipmt/{config}.yaml"], [
        "train.backward=once", "iou_net.training=joint", f"model.memory_prototype={str(memory).lower()}"]))
    model = model_of(trained=trained, with_memory=memory, **switches).train()
    reference, step, batch = ReferenceTrainStep(model, cfg), TrainStep(model, cfg), batch_of()
    encoded = step.encode(batch)
    assert len(encoded.memory_index) == (2 if memory else 0)
    ours = [step(encoded, number)[0] for number in range(encoded.num_clips)]
    sum(sum(named.values()) for named in ours).backward()
    theirs = reference(batch)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name in mine:
            torch.testing.assert_close(mine[name], other[name], rtol=1e-8, atol=1e-10, msg=name)
    sum(sum(named.values()) for named in theirs).backward()
    gradients = {name: p.grad for name, p in reference.network.model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (gradients[name] is None), name
        if parameter.grad is not None:
            scale = float(gradients[name].abs().max())
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-6, atol=1e-9 + 1e-8 * scale, msg=name)


def test_backward_returns_the_sum_of_all_losses():
    cfg = EasyDict(load_config(["config/vipmt/released.yaml"], []))
    reference, batch = ReferenceTrainStep(model_of(**RELEASED).train(), cfg), batch_of()
    total = sum(float(value.detach()) for named in reference(batch) for value in named.values())
    assert float(reference.backward(batch)) == pytest.approx(total)


def test_other_memory_masks_than_the_truth_are_refused():
    cfg = EasyDict(load_config(["config/vipmt/released.yaml"], ["train.memory_masks=predicted"]))
    with pytest.raises(ValueError, match="train.memory_masks=ground_truth"):
        ReferenceTrainStep(model_of(), cfg)
