"""TrainStep on a batch built by hand: which frames and masks it reads, and where its gradients go."""
import pytest
import torch
from material import MODEL, PAPER, RELEASED, batch_of

from models.vipmt import TrainStep, build, losses, parameter_groups
from models.vipmt.memory import draw_memory
from utils.config import load_config
from utils.seeds import rng_for
from utils.training.step import fetch

B, SHOTS, CLIPS, LENGTH, SIZE = 2, 2, 3, 2, (40, 48)
TINY = [*MODEL, "model.dropout=0.0", "model.feature_dropout=0.0"]


pytestmark = pytest.mark.usefixtures("double")


def step_of(*overrides, config=RELEASED, memory=(((0, 1), (0, 3)), ((0, 1), (1, 2)))):
    """memory: what the two episodes' second and third clips remember, in place of what would be drawn"""
    torch.manual_seed(1)
    cfg = load_config([config], [*TINY, *overrides])
    step = TrainStep(build(cfg), cfg).train()
    if memory and cfg.model.memory_prototype:
        step.memory_index = lambda batch: [torch.tensor(clip[:len(batch.keys)]) for clip in zip(*memory, strict=True)]
    return step


def small_batch():
    generator = torch.Generator().manual_seed(2)
    count = SHOTS + CLIPS * LENGTH
    coarse = torch.rand(B, count, 5, 6, generator=generator) > 0.5
    masks = coarse.repeat_interleave(8, -2).repeat_interleave(8, -1)
    return batch_of(torch.randn(B, count, 3, *SIZE, generator=generator), masks, SHOTS, LENGTH)


def all_losses(step, batch):
    return [step(*unit)[0] for unit in step.units(batch)]


def gradients(step):
    return {name: p.grad.clone() for name, p in step.named_parameters() if p.grad is not None}


# Losses

@pytest.mark.parametrize("config", [PAPER, RELEASED])
def test_losses_are_finite_named_scalars(config):
    step = step_of(config=config)
    units = step.units(small_batch())
    assert len(units) == CLIPS
    for unit in units:
        named, statistics = step(*unit)
        assert set(named) == {"final", "initial", "aux_query", "aux_support", "ccds", "iou_net"}
        assert all(x.dim() == 0 and torch.isfinite(x) for x in [*named.values(), *statistics.values()])
        assert set(statistics) == {"iou", "iou_error"} and not any(x.requires_grad for x in statistics.values())


@pytest.mark.parametrize("similarity", ["dot", "pooled_cosine"])
def test_losses_are_the_released_ones_with_the_configs_weights(similarity):
    step = step_of("loss.final=2.0", "loss.initial=3.0", "loss.aux_query=5.0", "loss.aux_support=7.0",
                   "loss.ccds_weight=11.0", "loss.iou_weight=13.0", f"iou_net.similarity={similarity}")
    batch = small_batch()
    encoded = step.encode(batch)
    found, _ = step(encoded, 1)
    model, span = step.model, slice(LENGTH, 2 * LENGTH)
    features, truth = model.encode(batch.query_images), batch.query_masks[:, span]
    small = batch.query_masks[..., ::8, ::8]
    support = model.encode_reference(model.encode(batch.support_images), batch.support_masks)
    clip = model.prepare(features.frames(span))
    memory = model.encode_memory(features.frames([0, 1]), batch.query_masks[:, :2])      # clip 2 remembers clip 1
    out = model(clip, support, memory, size=SIZE)
    reference_truth = torch.cat([batch.support_masks[..., ::8, ::8], small[:, :2]], dim=1)
    queries = [logits for layer in out.layers for logits in (layer.clip_logits, layer.frame_logits)]
    predicted, true = model.predict_iou(out, clip, support, memory), losses.mask_iou(out.masks, truth)
    expected = {
        "final": 2 * losses.segmentation_loss(out.logits, truth),
        "initial": 3 * losses.segmentation_loss(out.initial_logits, truth),
        "aux_query": 5 * losses.auxiliary_loss(queries, small[:, span]),
        "aux_support": 7 * losses.auxiliary_loss([layer.support_logits for layer in out.layers], reference_truth),
        "ccds": 11 * losses.ccds_loss_released(torch.stack([layer.clip_inter for layer in out.layers]),
                                               clip.reduced, small[:, span]),
        "iou_net": 13 * (predicted - true).abs().sum() / B}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def test_loss_switches():
    batch = small_batch()
    assert "ccds" not in all_losses(step_of("loss.ccds=none"), batch)[0]

    def second_clip(name, switch):
        return all_losses(step_of(switch), batch)[1][name]
    mean, total = (second_clip("iou_net", f"iou_net.loss={kind}") for kind in ("mean", "sum_per_batch"))
    torch.testing.assert_close(total, LENGTH * mean)
    assert not torch.isclose(second_clip("iou_net", "iou_net.loss=bce"), mean)
    paper, released = (second_clip("ccds", f"loss.ccds={kind}") for kind in ("paper", "released"))
    assert not torch.isclose(paper, released)


def test_ccds_of_a_single_episode_is_zero():
    batch = small_batch()
    for name in ("support_images", "support_masks", "query_images", "query_masks"):
        setattr(batch, name, getattr(batch, name)[:1])
    batch.keys, batch.query_frames = batch.keys[:1], batch.query_frames[:1]
    assert all(named["ccds"] == 0 for named in all_losses(step_of(), batch))


def test_model_without_memory_has_no_iou_loss():
    step = step_of("model.memory_prototype=false")
    assert all("iou_net" not in named for named in all_losses(step, small_batch()))
    assert not step.joint_iou and "not used" in step.about


def test_separate_training_without_weights_falls_back_to_joint_and_says_so():
    step = step_of(config=PAPER)
    assert step.cfg.iou_net.training == "separate" and step.joint_iou and step.about == "IoUNet trained jointly"


def test_iou_net_with_weights_of_its_own_is_frozen(tmp_path):
    from utils.checkpoint import save_checkpoint
    path = tmp_path / "iou_net.pth"
    save_checkpoint(path, {"model": {f"iou_net.{k}": v for k, v in step_of().model.iou_net.state_dict().items()}})
    cfg = load_config([PAPER], [*TINY, f"iou_net.weights={path}"])
    model = build(cfg, pretrained=True)
    step = TrainStep(model, cfg).train()
    assert not any(p.requires_grad for p in model.iou_net.parameters()) and step.about == f"IoUNet from {path}"
    assert "iou_net" not in all_losses(step, small_batch())[0]


def test_an_iounet_trained_beside_the_rest_learns_at_its_share_of_the_rate():
    step = step_of("iou_net.rate=0.25")
    rest, iou_net = parameter_groups(step.model, step.cfg)
    ours = {id(p) for p in step.model.iou_net.parameters()}
    assert {*map(id, iou_net["params"])} == ours and iou_net["share"] == 0.25
    assert len(rest["params"]) + len(iou_net["params"]) == sum(p.requires_grad for p in step.model.parameters())
    for name, parameter in step.model.named_parameters():            # alone it has the whole rate
        parameter.requires_grad_(name.startswith("iou_net."))
    assert [group.get("share", 1) for group in parameter_groups(step.model, step.cfg)] == [1]


# Gradients

def test_gradients_of_the_clips_add_up_to_that_of_the_sum():
    step, batch = step_of(), small_batch()
    sum(sum(named.values()) for named in all_losses(step, batch)).backward()
    together = gradients(step)
    step.zero_grad()
    for unit in step.units(batch):
        sum(step(*unit)[0].values()).backward()
    separately = gradients(step)
    assert together.keys() == separately.keys()
    for name, gradient in together.items():
        torch.testing.assert_close(separately[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("config", [PAPER, RELEASED])
def test_gradient_reaches_every_trained_parameter(config):
    step = step_of("iou_net.training=joint", config=config)
    sum(sum(named.values()) for named in all_losses(step, small_batch())).backward()
    silent = [name for name, p in step.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not silent
    assert all(p.grad is None for p in step.model.backbone.parameters())


def test_trained_backbone_learns_where_all_clips_share_one_graph():
    step = step_of("backbone.trained=true", "train.backward=once")
    sum(sum(named.values()) for named in all_losses(step, small_batch())).backward()
    assert all(p.grad is not None and p.grad.any() for name, p in step.model.backbone.named_parameters()
               if "layer4" not in name)        # stage 4 serves prior and similarity maps, which have no gradient


def test_trained_backbone_with_one_graph_per_clip_is_refused():
    cfg = load_config([RELEASED], [*TINY, "backbone.trained=true", "train.backward=once"])
    cfg.train.backward = "per_clip"
    with pytest.raises(ValueError, match="train.backward=once or backbone.trained=false"):
        TrainStep(build(cfg), cfg)


# Memory

def test_all_frames_are_encoded_in_one_call():
    step, calls = step_of(), []
    step.model.backbone.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0].shape))
    all_losses(step, small_batch())
    assert calls == [(B, SHOTS + CLIPS * LENGTH, 3, *SIZE)]


def test_first_clip_has_no_memory():
    step = step_of()
    assert step.remember(step.encode(small_batch()), 0) == (None, None)
    without = step_of("model.memory_prototype=false")
    encoded = without.encode(small_batch())
    assert encoded.memory_index == [] and without.remember(encoded, 2) == (None, None)


@pytest.mark.parametrize("mode", ["distinct", "repeat"])
def test_each_episode_draws_its_memory_from_its_key_alone(mode):
    """Windows that overlap: with `distinct` a frame that the clip itself shows is no candidate."""
    step, batch = step_of(f"data.short_video={mode}", "memory.length=3", memory=None), small_batch()
    batch.query_frames, batch.keys = [[3, 4, 4, 5, 9, 8], [0, 1, 5, 6, 7, 8]], [("train", 2, 7), ("train", 2, 8)]
    found = step.memory_index(batch)
    assert [index.shape for index in found] == [(B, 3)] * 2
    for b, shown in enumerate(batch.query_frames):
        windows = [shown[:2], shown[2:4], shown[4:]]
        expected = draw_memory(windows, 3, mode, rng_for(step.cfg.seed, *batch.keys[b], "memory"))
        assert tuple(tuple(index[b].tolist()) for index in found) == expected
    state = torch.get_rng_state()
    batch.query_frames, batch.keys = batch.query_frames[::-1], batch.keys[::-1]
    assert all(torch.equal(a, b.flip(0)) for a, b in zip(found, step.memory_index(batch), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_memory_index_is_what_memory_reads():
    """Clip 3 of episode 0 remembers frames 0 and 3, that of episode 1 frames 1 and 2; nothing else is looked at."""
    step = step_of()
    before = step(step.encode(small_batch()), 2)[0]

    def losses_with(episode, frame):
        batch = small_batch()
        batch.query_images[episode, frame] += 1.0
        batch.query_masks[episode, frame] = ~batch.query_masks[episode, frame]
        return step(step.encode(batch), 2)[0]
    for episode, read in ((0, {0, 3}), (1, {1, 2})):
        for frame in range(4):
            after = losses_with(episode, frame)
            same = all(torch.equal(after[name], value) for name, value in before.items())
            assert same == (frame not in read), (episode, frame)


def test_memory_holds_true_masks_by_default():
    step, batch = step_of(), small_batch()
    encoded = step.encode(batch)
    guidance, truth = step.remember(encoded, 2)
    expected = torch.stack([batch.query_masks[0, [0, 3]], batch.query_masks[1, [1, 2]]])[..., ::8, ::8]
    assert torch.equal(guidance.masks, expected) and torch.equal(truth, expected)


def test_predicted_memory_masks_come_from_the_clips_before():
    step, batch = step_of("train.memory_masks=predicted"), small_batch()
    truth, encoded, predictions = batch.query_masks.clone(), step.encode(batch), []
    step.model.register_forward_hook(lambda module, inputs, output: predictions.append(output.masks))
    for number in (0, 1):
        step(encoded, number)
    predicted = torch.cat(predictions, dim=1)
    assert not torch.equal(predicted, truth[:, :4])
    guidance, true_masks = step.remember(encoded, 2)
    assert torch.equal(guidance.masks, torch.stack([predicted[0, [0, 3]], predicted[1, [1, 2]]])[..., ::8, ::8])
    assert torch.equal(true_masks, torch.stack([truth[0, [0, 3]], truth[1, [1, 2]]])[..., ::8, ::8])
    assert torch.equal(batch.query_masks, truth)       # losses still see the truth


def test_noisy_memory_masks_leave_the_truth_alone():
    step, batch = step_of("train.memory_masks=noisy"), small_batch()
    truth, encoded = batch.query_masks.clone(), step.encode(batch)
    guidance, true_masks = step.remember(encoded, 1)
    assert not torch.equal(guidance.masks, true_masks) and torch.equal(true_masks, truth[:, :2, ::8, ::8])
    assert torch.equal(batch.query_masks, truth) and torch.equal(encoded.query_masks, truth)


def test_memory_sends_no_gradient_into_a_trained_backbone():
    step, batch = step_of("backbone.trained=true", "train.backward=once"), small_batch()
    images = batch.query_images.requires_grad_()
    sum(step(step.encode(batch), 2)[0].values()).backward()
    assert images.grad[:, 4:].any() and not images.grad[:, :4].any()


@pytest.mark.parametrize("losses, statistics", [
    ({"final": 1}, {"final": 2}), ({"grad_norm": 1}, {}), ({"final": 1}, {"step": 3}), ({"final": 1}, {"losses": 3})])
def test_names_that_would_overwrite_each_other_are_refused(losses, statistics):
    unit = tuple({name: torch.tensor(float(value)) for name, value in some.items()} for some in (losses, statistics))
    with pytest.raises(ValueError, match="is a name twice, or one of the log's own"):
        fetch([unit], torch.tensor(1.0))
    other = {"b": torch.tensor(1.0), "a": torch.tensor(2.0)}
    with pytest.raises(ValueError, match="others in another unit"):
        fetch([(other, {}), (dict(reversed(other.items())), {})], torch.tensor(1.0))
