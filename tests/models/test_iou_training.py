"""IoUNet on synthesised masks: what it reads and trains, that it learns, resumes, and loads into a VIPMT."""
import numpy as np
import pytest
import torch
from material import TINY, batch_of, command, same_weights

import train
from dataloaders import build_index
from dataloaders.fewshot.loaders import train_batches
from models import get_method
from models.iou_training import TrainStep, build
from models.iou_training.build import load_encoder_and_iou_net
from models.vipmt import TrainStep as JointStep
from models.vipmt import build as build_vipmt
from models.vipmt.iou_net import IoUNet, structural_similarity_maps
from models.vipmt.losses import iou_cross_entropy, mask_iou
from models.vipmt.similarity import gather_foreground, max_similarity
from utils.checkpoint import load_checkpoint, load_weights, save_checkpoint
from utils.config import load_config

B, SHOTS, CLIPS, LENGTH, SIZE = 2, 2, 2, 3, (48, 80)
VIDEO = "config/vipmt/iounet_video.yaml"
SETTINGS = [*TINY, "data.clips=2", "iou_net.dim=8", "iou_net.hidden=16", "iou_net.init=fan_in"]


def config(*overrides):
    return load_config([VIDEO], [*SETTINGS, *overrides])


def step_of(*overrides):
    torch.manual_seed(1)
    cfg = config(*overrides)
    return TrainStep(build(cfg), cfg).train()


def boxes(size=B):
    """A batch of noise whose objects are boxes"""
    generator, count = torch.Generator().manual_seed(2), SHOTS + CLIPS * LENGTH
    images = torch.randn(size, count, 3, *SIZE, generator=generator)
    top, left = (torch.randint(0, 24, (size, count, 1, 1), generator=generator) for _ in range(2))
    rows, cols = torch.arange(SIZE[0])[:, None], torch.arange(SIZE[1])
    return batch_of(images, (rows >= top) & (rows < top + 24) & (cols >= left) & (cols < left + 40), SHOTS, LENGTH)


# What it reads

@pytest.mark.parametrize("similarity", ["dot", "pooled_cosine"])
def test_maps_are_those_of_the_noisy_masks_against_the_supports(similarity, monkeypatch):
    """Eqs. 15-16 computed here from the backbone's features, without VIPMT's methods."""
    step, batch, seen = step_of(f"iou_net.similarity={similarity}"), boxes(), []
    monkeypatch.setattr(step.model.iou_net, "forward", lambda fused, maps: seen.append(maps) or maps[:, :, 0, 0, 0])
    encoded = step.encode(batch)
    step.predict(encoded, 1)
    query = step.model.encode(batch.query_images[:, LENGTH:]).c5
    support = step.model.encode(batch.support_images).c5
    cosine = similarity == "pooled_cosine"
    if cosine:
        query, support = (x.unflatten(2, (16, -1)).mean(3) for x in (query, support))     # 64 channels to model.dim
    noisy = encoded.memory_masks[:, LENGTH:, ::8, ::8]
    keys = gather_foreground(support, batch.support_masks[:, :, ::8, ::8])
    to_support = max_similarity(query, keys, cosine).amax(2)
    torch.testing.assert_close(seen[0], structural_similarity_maps(query, noisy, to_support, cosine))


def test_without_similarity_maps_it_reads_the_mask_alone():
    step = step_of("iou_net.similarity_maps=false")
    assert step.model.iou_net.conv1.in_channels == 8 + 1
    losses, _ = step(*step.units(boxes())[0])
    assert torch.isfinite(losses["iou_net"])


@pytest.mark.parametrize("loss", ["mean", "sum_per_batch"])
def test_loss_is_the_error_against_the_true_iou_of_the_noise(loss):
    step = step_of(f"iou_net.loss={loss}", "loss.iou_weight=3.0")
    encoded = step.encode(boxes())
    named, statistics = step(encoded, 1)
    logits, true = step.predict(encoded, 1)
    masks = (x[:, LENGTH:].flatten(0, 1) for x in (encoded.memory_masks, encoded.query_masks))
    by_hand = torch.tensor([float((a & b).sum() / (a | b).sum()) for a, b in zip(*masks, strict=True)])
    torch.testing.assert_close(true.flatten().float(), by_hand)
    errors = (logits.sigmoid().flatten() - by_hand).abs()
    torch.testing.assert_close(named["iou_net"], 3 * (errors.mean() if loss == "mean" else errors.sum() / B))
    torch.testing.assert_close(statistics["iou_error"].float(), errors.mean())
    torch.testing.assert_close(statistics["iou"].float(), by_hand.mean())


def test_a_batch_of_one_episode_has_no_other_object():
    step = step_of()
    losses, _ = step(*step.units(boxes(size=1))[0])
    assert torch.isfinite(losses["iou_net"])


def test_noise_follows_from_the_global_generator():
    step, batch, drawn = step_of(), boxes(), []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        drawn.append(step.encode(batch).memory_masks)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    np.random.seed(0)
    torch.manual_seed(5)
    assert torch.equal(step.encode(batch).memory_masks, drawn[0])


# What it trains

def test_only_iounet_has_gradients_and_the_rest_never_drops_anything():
    step = step_of("model.feature_dropout=0.5")
    units = step.units(boxes())
    for unit in units:
        sum(step(*unit)[0].values()).backward()
    assert len(units) == CLIPS and units[0][0].memory_index == []
    trained = {name for name, p in step.model.named_parameters() if p.grad is not None}
    assert trained == {f"iou_net.{name}" for name, _ in step.model.iou_net.named_parameters()}
    assert not step.model.activation.training and not any(p.requires_grad for p in step.model.backbone.parameters())


def test_without_memory_there_is_nothing_to_train():
    with pytest.raises(ValueError, match="model.memory_prototype: false.*\n.*true"):
        build(config("model.memory_prototype=false"))


def test_it_segments_nothing_and_says_so():
    with pytest.raises(ValueError, match="segments nothing.\n.*iou_net.weights"):
        get_method("iounet").Segmenter(None, None, None, rng=None)
    with pytest.raises(ValueError, match="segments nothing"):        # before training, not at the first validation
        build(config("validate.classes=base_holdout"))


# That it learns

def batch_to_see(seed, size=4, frames=4, shape=(64, 96)):
    """Bright boxes on noise: what a random encoder can see, too."""
    generator, count = torch.Generator().manual_seed(seed), SHOTS + frames
    centre = [torch.randint(16, side - 16, (size, count, 1, 1), generator=generator) for side in shape]
    half = [torch.randint(8, 24, (size, count, 1, 1), generator=generator) for _ in shape]
    places = torch.arange(shape[0])[:, None], torch.arange(shape[1])
    masks = ((places[0] - centre[0]).abs() < half[0]) & ((places[1] - centre[1]).abs() < half[1])
    noise = 0.3 * torch.randn(size, count, 3, *shape, generator=generator)
    return batch_of(noise + 2 * masks[:, :, None], masks, SHOTS, frames)


def measured(step, encoded):
    """L1 error on noise that is drawn for the measurement, and that of the best constant."""
    torch.manual_seed(99)
    for one in encoded:
        one.memory_masks = step.initial_memory_masks(one.query_masks)
    with torch.no_grad():
        pairs = [step.predict(one, 0) for one in encoded]
    predicted, true = (torch.cat([pair[i].flatten() for pair in pairs]).double() for i in (0, 1))
    return float((predicted.sigmoid() - true).abs().mean()), float((true - true.median()).abs().mean())


@pytest.mark.parametrize("loss", ["bce", "mean"])
def test_training_lowers_the_error_on_held_out_noise(loss):
    """On videos and noise that it never saw, IoUNet becomes better than every constant within seconds."""
    step = step_of(f"iou_net.loss={loss}", "iou_net.dim=16", "iou_net.hidden=64")
    seen, held_out = ([step.encode(batch_to_see(seed)) for seed in seeds] for seeds in (range(16), range(100, 116)))
    before, constant = measured(step, held_out)
    optimizer = torch.optim.Adam(step.model.iou_net.parameters(), lr=1e-3)
    for number in range(150):
        encoded = seen[number % 16]
        encoded.memory_masks = step.initial_memory_masks(encoded.query_masks)
        optimizer.zero_grad()
        step(encoded, 0)[0]["iou_net"].backward()
        optimizer.step()
    after, _ = measured(step, held_out)
    assert after < 0.95 * constant and after < 0.95 * before


def first_step(lr):
    """How far Adam's first step moves the logits of a full-size IoUNet that sees dense inputs of one sign."""
    torch.manual_seed(4)
    iou_net = load_config([VIDEO]).iou_net
    net = IoUNet(channels=(8, 8, 8), maps=5, dim=iou_net.dim, hidden=iou_net.hidden, init=iou_net.init)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    inputs = torch.rand(3, iou_net.dim, 30, 53), torch.rand(1, 3, 5, 30, 53)
    before = net(*inputs)
    iou_cross_entropy(before, torch.rand(1, 3)).backward()
    optimizer.step()
    with torch.no_grad():
        return float((net(*inputs) - before).abs().mean())


def test_the_first_step_of_the_configured_rate_stays_within_the_sigmoid():
    """fc1 sums 28 672 inputs: at 1e-4 a step of Adam, the same for each of them, throws every prediction to 0 or 1."""
    assert first_step(load_config([VIDEO]).train.lr) < 3
    assert first_step(1e-4) > 10


# train.py, checkpoints

def run(monkeypatch, root, output, *arguments):
    command(monkeypatch, train, "--fold", 1, "--output", output, f"data.root={root}", *SETTINGS,
            "data.samples_per_class=1", "train.lr=1.0e-5", *arguments, config=[VIDEO])
    return load_checkpoint(output / "last.pth")


def test_resume_draws_the_same_noise_and_its_file_serves_as_iou_net_weights(monkeypatch, demo_root, tmp_path, no_pages):
    whole = run(monkeypatch, demo_root, tmp_path / "whole")
    run(monkeypatch, demo_root, tmp_path / "halves", "train.epochs=1")
    halves = run(monkeypatch, demo_root, tmp_path / "halves", "--resume")
    assert whole["progress"] == halves["progress"] and whole["progress"]["global_step"] == 6
    assert same_weights(whole["model"], halves["model"])

    file = tmp_path / "whole" / "last.pth"
    cfg = load_config([], [*SETTINGS, f"iou_net.weights={file}"])
    model = build_vipmt(cfg, pretrained=True)
    own = {name: value for name, value in model.state_dict().items() if name.startswith("iou_net.")}
    assert own and all(torch.equal(value, whole["model"][name]) for name, value in own.items())
    step = JointStep(model, cfg)
    assert not step.joint_iou and not any(p.requires_grad for p in model.iou_net.parameters())
    with pytest.raises(ValueError, match="do not fit"):              # it is no trained VIPMT, and cannot pass for one
        load_weights(build_vipmt(cfg), whole["model"], file)


def test_the_encoder_may_come_from_a_vipmt_checkpoint(tmp_path):
    torch.manual_seed(3)
    vipmt = build_vipmt(load_config([], SETTINGS))
    file = tmp_path / "vipmt.pth"
    save_checkpoint(file, {"model": vipmt.state_dict()})
    model = build(config(f"backbone.weights={file}"), pretrained=True)
    expected = vipmt.backbone.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.backbone.state_dict().items())
    with pytest.raises(ValueError, match="vipmt.pth: these weights do not fit"):
        build(config(f"backbone.weights={file}", "backbone.width=16"), pretrained=True)


def test_a_jointly_trained_iounet_can_be_measured_too(tmp_path):
    torch.manual_seed(3)
    vipmt = build_vipmt(load_config([], SETTINGS))
    file = tmp_path / "vipmt.pth"
    save_checkpoint(file, {"model": vipmt.state_dict()})
    model = build(config())
    load_encoder_and_iou_net(model, file)
    for part in ("backbone", "iou_net"):
        expected = getattr(vipmt, part).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in getattr(model, part).state_dict().items())


def test_noise_of_a_batch_covers_good_and_bad_masks(demo_root):
    cfg = config(f"data.root={demo_root}", "data.samples_per_class=4", "train.batch_size=4", "data.clips=3")
    step, values = step_of(), []
    for batch in train_batches(cfg, build_index(cfg), 1, epoch=0):
        values.append(mask_iou(step.initial_memory_masks(batch.query_masks), batch.query_masks).flatten())
    counts = torch.histc(torch.cat(values).float(), 5, 0, 1)
    assert len(torch.cat(values)) > 250 and (counts / counts.sum()).sub(0.2).abs().max() < 0.06
