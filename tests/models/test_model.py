"""VIPMT as a whole: episodes are independent, every switch runs, names are stable, precision is as expected."""
import pytest
import torch
from material import MODEL, PAPER, RELEASED

import dataloaders
import models
from models import METHODS, get_method
from models.backbone import Backbone
from models.vipmt import build
from models.vipmt.iou_net import IoUNet
from models.vipmt.model import VIPMT
from utils.checkpoint import save_checkpoint
from utils.config import load_config

SWITCHES = [
    "model.frame_prototype=false", "model.communication=one_way", "model.memory_attention=joint",
    "model.memory_attention=separate", "model.prior=cumulative", "model.prior=per_frame", "model.memory_in_prior=true",
    "model.memory_in_prior=false", "model.degenerate_masks=patch", "model.high_level=c4", "model.layers=1",
    "iou_net.similarity=pooled_cosine", "iou_net.similarity=dot", "iou_net.similarity_maps=false",
    "model.memory_prototype=false", "model.prior_channels=self_support"]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def built(*overrides, config=PAPER):
    return build(load_config([config], [*MODEL, *overrides]))


def inputs_of(episodes=2, shots=2, memories=3, frames=3, size=(40, 48), dtype=torch.float64):
    """images (B, K + M + T, 3, H, W), masks (B, K + M, H, W) and the spans of the three"""
    count = shots + memories
    images = torch.randn(episodes, count + frames, 3, *size, dtype=dtype)
    spans = slice(0, shots), slice(shots, count), slice(count, None)
    return images, torch.rand(episodes, count, *size) > 0.5, spans


def run(model, images, masks, spans):
    """One clip with memory  ->  Segmentation, predicted IoUs (or None)"""
    supports, memories, frames = spans
    features = model.encode(images)
    support = model.encode_reference(features.frames(supports), masks[:, supports])
    memory = model.encode_memory(model.memory_features(features.frames(memories)), masks[:, memories])
    clip = model.prepare(features.frames(frames))
    out = model(clip, support, memory, size=images.shape[-2:])
    return out, None if model.iou_net is None else model.predict_iou(out, clip, support, memory)


@pytest.mark.parametrize("name", METHODS)
def test_registry_offers_what_train_and_test_need(name):
    method = get_method(name)
    assert all(callable(getattr(method, part)) for part in models.CONTRACT if part != "TASK")
    assert method.__name__ == METHODS[name] and method.TASK in dataloaders.TASKS


@pytest.mark.parametrize("config", [PAPER, RELEASED])
def test_batch_of_episodes_equals_episodes_alone(config):
    model, (images, masks, spans) = built(config=config).double().eval(), inputs_of(episodes=3)
    with torch.no_grad():
        together, ious = run(model, images, masks, spans)
        for b in range(3):
            alone, iou = run(model, images[b:b + 1], masks[b:b + 1], spans)
            torch.testing.assert_close(alone.logits, together.logits[b:b + 1], rtol=1e-9, atol=1e-10)
            torch.testing.assert_close(iou, ious[b:b + 1], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("config", [PAPER, RELEASED])
def test_float32_is_close_to_float64(config):
    model, (images, masks, spans) = built(config=config).eval(), inputs_of()
    with torch.no_grad():
        single, ious = run(model, images.float(), masks, spans)
        double, exact = run(model.double(), images, masks, spans)
    assert single.logits.dtype == torch.float32 and double.logits.dtype == torch.float64
    torch.testing.assert_close(single.logits.double(), double.logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ious.double(), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("config", [PAPER, RELEASED])
@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_runs_forward_and_backward(switch, config):
    model, (images, masks, spans) = built(switch, config=config).train(), inputs_of(dtype=torch.float32)
    out, iou = run(model, images, masks, spans)
    assert out.logits.shape == (2, 3, 2, 40, 48) and out.initial_logits.shape == out.logits.shape
    assert out.low_logits.shape == (2, 3, 2, 5, 6) and out.masks.shape == (2, 3, 40, 48)
    assert torch.isfinite(out.logits).all() and torch.equal(out.masks, out.margins > 0)
    assert (iou is None) == ("memory_prototype=false" in switch) and (iou is None or iou.shape == (2, 3))
    (out.logits.square().mean() + out.initial_logits.square().mean() + (0 if iou is None else iou.sum())).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(("switch", "segments"), [
    ("model.memory_attention=joint", True), ("model.prior=cumulative", True), ("model.memory_in_prior=true", True),
    ("model.communication=one_way", True), ("iou_net.similarity=pooled_cosine", False)])
def test_switch_changes_masks_or_only_their_predicted_iou(switch, segments):
    (images, masks, spans), plain, other = inputs_of(), built().double().eval(), built(switch).double().eval()
    other.load_state_dict(plain.state_dict())
    with torch.no_grad():
        (a, iou), (b, other_iou) = run(plain, images, masks, spans), run(other, images, masks, spans)
    assert torch.equal(a.logits, b.logits) != segments
    assert segments or not torch.equal(iou, other_iou)


@pytest.mark.parametrize("value", [False, True], ids=["empty", "full"])
def test_degenerate_masks_matter_to_attention_only_where_they_are_patched(value):
    (images, masks, spans), plain = inputs_of(), built().double().eval()
    patched = built("model.degenerate_masks=patch").double().eval()
    patched.load_state_dict(plain.state_dict())
    with torch.no_grad():
        normal = [run(model, images, masks, spans)[0].logits for model in (plain, patched)]
        masks[:] = value
        a, b = (run(model, images, masks, spans)[0] for model in (plain, patched))
    assert torch.equal(*normal) and not torch.equal(a.logits, b.logits)
    assert torch.equal(a.activation.query, b.activation.query)


def test_weight_names_do_not_depend_on_switches():
    def shapes(*overrides, config=PAPER):
        return {k: v.shape for k, v in built(*overrides, config=config).state_dict().items()}
    every = shapes()
    assert shapes(config=RELEASED) == every
    for switch in ("model.communication=one_way", "model.memory_attention=joint", "model.prior=cumulative",
                   "model.memory_in_prior=true", "model.degenerate_masks=patch", "backbone.cache_frames=9"):
        assert shapes(switch) == every, switch
    removed = set(every) - set(shapes("model.frame_prototype=false"))
    assert removed == {k for k in every if "frame_" in k or k.startswith("mask_heads.frame.")}
    removed = set(every) - set(shapes("model.memory_prototype=false"))
    assert removed == {k for k in every if k.startswith("iou_net.")}


def test_paper_size_has_the_papers_parameters():
    """108.3 M trained, 41.76 M of them in the score head, and 23.58 M in the frozen backbone."""
    with torch.device("meta"):
        model = build(load_config([PAPER]))

    def millions(tensors):
        return round(sum(t.numel() for t in tensors) / 1e6, 2)
    assert millions(model.iou_net.parameters()) == 41.76
    assert millions(p for p in model.parameters() if p.requires_grad) == pytest.approx(108.3, abs=0.05)
    assert millions(model.backbone.parameters()) == 23.58
    assert millions(model.parameters()) == pytest.approx(131.9, abs=0.05)


def test_initialisation_follows_the_release():
    model = built("model.dim=64", "model.heads=8")
    bound = (6 / (1 + 64)) ** 0.5
    assert float(model.level_embed.detach().abs().max()) <= bound
    linear = model.layers[0].support_attention.to_q
    assert float(linear.weight.detach().abs().max()) <= (6 / 128) ** 0.5
    assert not model.layers[0].query_activation.attention.kv.bias.any()
    assert torch.equal(model.upsample_final.weight, torch.full((2, 1, 9, 9), 1 / 81))
    assert len({p.data_ptr() for p in model.parameters()}) == len(list(model.parameters()))      # no shared memory


def test_initial_logits_are_made_in_training_only():
    model, arguments = built(), inputs_of(dtype=torch.float32)
    assert run(model.train(), *arguments)[0].initial_logits is not None
    assert run(model.eval(), *arguments)[0].initial_logits is None


def test_size_defaults_to_eight_times_the_features():
    model, (images, masks, spans) = built().double().eval(), inputs_of(size=(36, 44))
    features = model.encode(images)
    support = model.encode_reference(features.frames(spans[0]), masks[:, spans[0]])
    assert model(model.prepare(features.frames(spans[2])), support).logits.shape[-2:] == (40, 48)
    assert model(model.prepare(features.frames(spans[2])), support, size=(36, 44)).logits.shape[-2:] == (36, 44)


def test_a_tie_is_background():
    model, arguments = built().double().eval(), inputs_of()
    with torch.no_grad():
        for parameter in model.final_classifier[-1].parameters():
            parameter.zero_()
        assert not run(model, *arguments)[0].masks.any()


def test_the_prior_that_is_added_is_the_final_margin_of_a_network_that_says_nothing():
    model = built("model.prior_channels=self_support", "model.prior_skip=2").double().eval()
    with torch.no_grad():
        for parameter in model.final_classifier[-1].parameters():
            parameter.zero_()
        out, _ = run(model, *inputs_of())
    torch.testing.assert_close(out.low_logits[:, :, 1] - out.low_logits[:, :, 0], 2 * out.activation.prior)


def test_memory_keeps_only_the_levels_that_are_read_again():
    images, _, _ = inputs_of()
    for in_prior in (False, True):
        model = built(f"model.memory_in_prior={str(in_prior).lower()}").double()
        kept = model.memory_features(model.encode(images))
        assert kept.c2 is None and (kept.c5 is not None) == in_prior and kept.c3 is not None and kept.c4 is not None


def test_order_of_query_frames_is_irrelevant_with_the_papers_prior():
    model, (images, masks, spans) = built().double().eval(), inputs_of()
    flipped = torch.cat([images[:, :5], images[:, 5:].flip(1)], dim=1)
    with torch.no_grad():
        a, b = run(model, images, masks, spans)[0], run(model, flipped, masks, spans)[0]
    torch.testing.assert_close(b.logits.flip(1), a.logits, rtol=1e-9, atol=1e-10)


def test_model_is_built_in_one_line_without_a_config():
    model = VIPMT(Backbone(name="tiny", width=8), None, dim=16, num_layers=1, heads=2, ffn_dim=16)
    assert model.iou_net is None and len(model.layers) == 1


# Weights of an IoUNet

def test_iou_net_loads_from_a_checkpoint_or_its_own_state(tmp_path):
    source = built()
    whole, own = tmp_path / "run.pth", tmp_path / "iou_net.pth"
    save_checkpoint(whole, {"model": source.state_dict()})
    save_checkpoint(own, dict(source.iou_net.state_dict()))
    for path in (whole, own):
        cfg = load_config([PAPER], [*MODEL, f"iou_net.weights={path}"])
        loaded = build(cfg, pretrained=True).iou_net
        for name, value in loaded.state_dict().items():
            assert torch.equal(value, source.iou_net.state_dict()[name])
        assert not any(p.requires_grad for p in loaded.parameters())


def test_iou_net_of_another_shape_is_refused(tmp_path):
    path = tmp_path / "iou_net.pth"
    save_checkpoint(path, IoUNet(channels=(8, 16, 32, 64), maps=1, dim=4, hidden=8).state_dict())
    with pytest.raises(ValueError, match="holds another IoUNet"):
        build(load_config([PAPER], [*MODEL, f"iou_net.weights={path}"]), pretrained=True)
    with pytest.raises(FileNotFoundError, match="iou_net.weights: no file"):
        build(load_config([PAPER], [*MODEL, f"iou_net.weights={tmp_path / 'none.pth'}"]), pretrained=True)


def test_unknown_method_is_named_with_the_choices():
    with pytest.raises(ValueError, match="model.method: unknown value 'stm'.\n.*vipmt"):
        get_method("stm")


def test_balanced_initialisation_keeps_positions_apart():
    """What initialisation.py claims: as released, little of the last features varies over positions."""
    shares = {}
    for recipe in ("released", "balanced"):
        torch.manual_seed(0)
        cfg = load_config(["config/vipmt/ytvis.yaml"], [
            "backbone.name=tiny", "backbone.width=16", "model.dim=32", "model.heads=4", "iou_net.dim=8",
            "iou_net.hidden=8", f"model.init={recipe}"])
        model = build(cfg).eval()
        masks = torch.zeros(1, 2, 64, 96, dtype=torch.bool)
        masks[:, :, 16:40, 16:56] = True
        with torch.no_grad():
            support = model.encode_reference(model.encode(torch.randn(1, 2, 3, 64, 96)), masks)
            clip = model.prepare(model.encode(torch.randn(1, 3, 3, 64, 96)))
            query = model(clip, support).layers[-1].query.flatten(3)
        shares[recipe] = float(query.std(-1).square().mean().sqrt() / query.square().mean().sqrt())
    assert shares["released"] < 0.1 < 0.2 < shares["balanced"], shares
