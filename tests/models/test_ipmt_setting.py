"""IPMT is a setting: `ablation/ipmt_baseline.yaml` computes Eqs. 1-7 of Section 3.2, frame by frame, no more.

The loop below follows the section: one frame, one prototype, no clip, no memory. What the paper leaves open (where the
MLP sits, norms, the residual in f_G, the self-attention inside QA) is that of the released structure, whose pieces
slow_layer.py writes out. Only the equations themselves are arranged here.
"""
from types import SimpleNamespace

import pytest
import torch
from material import DEMO, MODEL, PAPER, TINY, segmented
from slow_layer import activated, close, mask_filter, randomise, read, refined, scored

from dataloaders import build_index
from dataloaders.episode import SupportSet
from dataloaders.fewshot.loaders import train_batches
from models import get_method
from models.vipmt.layer import VIPMTLayer, positions
from models.vipmt.model import VIPMT, MaskHeads
from models.vipmt.reference_frames import ReferenceFrames
from utils.config import differences, load_config
from utils.seeds import rng_for

C, H, W, LAYERS = 16, 5, 6, 3
IPMT = [PAPER, "config/vipmt/ablation/ipmt_baseline.yaml"]
LAYERED = [*MODEL, f"model.layers={LAYERS}"]

pytestmark = pytest.mark.usefixtures("exact")


# Section 3.2, written from the equations

def ipm(layer, head, prototype, support, query, mask):
    """Eqs. 1-3: G_l = MLP(G^s_l + G^q_l + G_{l-1}); support (features (K, C, h, w), masks), query (1, C, h, w)

    Released: the MLP is one per message before the sum, and f_G of Eq. 6 after it, whose result is G_l.
    """
    message, = read(layer.support_attention, prototype, support)
    support_proto = refined(layer.support_refine, message, prototype)                         # Eq. 2
    message, = read(layer.clip_attention, prototype, (query, mask))
    query_proto = refined(layer.clip_refine, message, prototype)                              # Eq. 3
    return mask_filter(head, support_proto + query_proto + prototype)                         # Eq. 1


def ipmt(layers, head, prototype, support, query, mask, position):
    """All layers on one frame  ->  per layer G_l, logits of O^s_l and O^q_l before the sigmoid, F^q_l"""
    found = []
    for layer in layers:
        prototype = ipm(layer, head, prototype, support, query, mask)
        support_logits, logits = scored(prototype, support[0]), scored(prototype, query)      # Eqs. 5, 6
        mask = logits.sigmoid() >= 0.5                                                        # the binarised O^q_l
        query = activated(layer.query_activation, query[0], prototype, position)[None]        # Eq. 7
        found.append(SimpleNamespace(prototype=prototype, support_logits=support_logits, logits=logits, query=query))
    return found


def assert_is_ipmt(outputs, expected, frame):
    """outputs: LayerOutputs of one-frame clips, `frame` in their batch; expected: of ipmt for this frame"""
    for out, ours in zip(outputs, expected, strict=True):
        assert out.memory_proto is None and out.frame_inter is None and out.frame_logits is None
        close(out.prototype[frame], ours.prototype)
        close(out.clip_inter[frame], ours.prototype)
        close(out.support_logits[frame], ours.support_logits)
        close(out.clip_logits[frame], ours.logits)
        close(out.query[frame], ours.query)
        assert torch.equal(out.mask[frame], ours.logits >= 0)


# The layers

def stack(frames, shots, layers=LAYERS):
    """Layers in IPMT's setting and `frames` one-frame clips, each with its own supports."""
    settings = {"dim": C, "heads": 2, "ffn_dim": 24, "dropout": 0.1, "frame_prototype": False}
    layers, heads = [VIPMTLayer(**settings).eval() for _ in range(layers)], MaskHeads(C, 0.1, False).eval()
    for module in (*layers, heads):
        randomise(module)
    masks = torch.rand(frames, shots, H, W) > 0.5
    return layers, SimpleNamespace(
        heads=heads, prototype=torch.randn(frames, C), query=torch.randn(frames, 1, C, H, W),
        mask=torch.rand(frames, 1, H, W) > 0.6, position=torch.randn(H, W, C),
        support=ReferenceFrames(torch.randn(frames, shots, C, H, W), masks, masks, None, None, None))


def run(layers, x):
    prototype, query, mask, outputs = x.prototype, x.query, x.mask, []
    for layer in layers:
        outputs.append(layer(prototype, query, mask, x.support, None, x.heads, x.position))
        prototype, query, mask = outputs[-1].prototype, outputs[-1].query, outputs[-1].mask
    return outputs


def loop(layers, x, frame):
    support = x.support.features[frame], x.support.masks[frame]
    return ipmt(layers, x.heads.clip, x.prototype[frame], support, x.query[frame], x.mask[frame], x.position)


@pytest.mark.parametrize("shots", [1, 5])
def test_layers_on_one_frame_clips_are_equations_1_to_7(shots):
    layers, x = stack(frames=3, shots=shots)
    outputs = run(layers, x)
    for frame in range(3):
        assert_is_ipmt(outputs, loop(layers, x, frame), frame)


@pytest.mark.parametrize("nothing", ["query mask", "support masks", "both"])
def test_empty_masks_are_treated_alike(nothing):
    layers, x = stack(frames=2, shots=2)
    if nothing != "support masks":
        x.mask[0] = False
    if nothing != "query mask":
        x.support.masks[0] = False
    outputs = run(layers, x)
    for frame in range(2):
        assert_is_ipmt(outputs, loop(layers, x, frame), frame)


def test_frames_of_a_batch_do_not_influence_one_another():
    layers, x = stack(frames=4, shots=2)
    before = run(layers, x)
    others = torch.tensor([True, True, False, True])
    x.query[others], x.mask[others] = torch.randn(3, 1, C, H, W), torch.rand(3, 1, H, W) > 0.5
    x.prototype[others], x.support.features[others] = torch.randn(3, C), torch.randn(3, 2, C, H, W)
    for a, b in zip(before, run(layers, x), strict=True):
        for name in ("prototype", "query", "clip_logits", "support_logits"):
            torch.testing.assert_close(getattr(a, name)[2], getattr(b, name)[2], rtol=0, atol=1e-12)
        assert not torch.allclose(a.prototype[others], b.prototype[others])


def test_a_clip_of_two_frames_is_no_longer_ipmt():
    """The check has teeth: with two frames in a clip, the second changes what the first gets."""
    layers, x = stack(frames=1, shots=2)
    alone = loop(layers, x, 0)
    x.query = torch.cat([x.query, torch.randn(1, 1, C, H, W)], dim=1)
    x.mask = torch.cat([x.mask, torch.rand(1, 1, H, W) > 0.6], dim=1)
    assert not torch.allclose(run(layers, x)[0].prototype[0], alone[0].prototype)


# The config

def built(*overrides):
    cfg = load_config(IPMT, [*LAYERED, *overrides])
    model = get_method(cfg.model.method).build(cfg).eval()
    for module in (model.layers, model.mask_heads):
        randomise(module)
    return cfg, model


def test_config_has_no_parameters_of_memory_or_frame_prototypes():
    cfg, model = built()
    reference = VIPMT(model.backbone, None, dim=C, num_layers=LAYERS, heads=2, ffn_dim=24, frame_prototype=False)
    names = set(model.state_dict())
    assert model.iou_net is None and names == set(reference.state_dict())
    assert not [name for name in names if "frame" in name or "memory" in name or "iou" in name]
    full = set(get_method("vipmt").build(load_config(IPMT[:1], LAYERED)).state_dict())
    gone = {name.split(".")[2] if name.startswith("layers.") else name.split(".")[0] for name in full - names}
    assert names < full and gone == {"frame_attention", "frame_refine", "mask_heads", "iou_net"}


def test_config_is_the_papers_own_but_for_what_makes_it_ipmt():
    changed = {key: now for key, (_, now) in differences(load_config(IPMT[:1]), load_config(IPMT)).items()}
    assert changed == {"name": "ipmt_baseline", "data.clip_length": 1, "data.clips": 15, "model.frame_prototype": False,
                       "model.memory_prototype": False, "loss.ccds": "none"}


def test_a_video_is_segmented_frame_by_frame_by_equations_1_to_7():
    """The way of test.py: the config's model, its segmenter, clips of data.clip_length; the loop starts at F_0, O_0."""
    cfg, model = built()
    images, masks = torch.randn(5, 3, 8 * H, 8 * W), torch.rand(2, 8 * H, 8 * W) > 0.5
    middle_of_initial_mask(model, images, masks)
    outs = []
    model.register_forward_hook(lambda module, inputs, out: outs.append(out))
    said = segmented(segmenter_of(cfg, model, images, masks), images[2:], clip_length=cfg.data.clip_length)
    assert len(said.margins) == len(outs) == 3 and said.ious is None and not said.remembered.any()

    support = model.encode_reference(model.encode(images[None, :2]), masks[None])
    for frame, out in enumerate(outs):
        query, initial = out.activation.query[0], out.activation.initial_logits[0]
        mask = initial[:, 1] > initial[:, 0]
        assert 0.05 < mask.double().mean() < 0.95
        expected = ipmt(model.layers, model.mask_heads.clip, model.prototype[0],
                        (support.features[0], support.masks[0]), query, mask, positions(query[None], model.level_embed))
        assert_is_ipmt(out.layers, expected, 0)
        x = model.final_refine(model.final_reduce(expected[-1].query).relu())
        logits = model.upsample_final(model.final_classifier(x)[None], images.shape[-2:])[0, 0]
        torch.testing.assert_close(said.margins[frame], (logits[1] - logits[0]).float(), rtol=1e-5, atol=1e-5)


def segmenter_of(cfg, model, images, masks):
    """The first two images are the supports"""
    return get_method("vipmt").Segmenter(model, SupportSet(images[:2], masks), cfg, rng=rng_for(0))


def middle_of_initial_mask(model, images, masks):
    """Shifts the initial classifier, so that O_0 is neither empty nor full."""
    support = model.encode_reference(model.encode(images[None, :2]), masks[None])
    initial = model(model.prepare(model.encode(images[None, 2:])), support).activation.initial_logits[0]
    model.activation.initial_classifier[-1].bias[1] -= (initial[:, 1] - initial[:, 0]).median()


def test_order_of_frames_and_earlier_frames_are_irrelevant():
    cfg, model = built()
    images, masks = torch.randn(6, 3, 8 * H, 8 * W), torch.rand(2, 8 * H, 8 * W) > 0.5

    forward, backward = (segmented(segmenter_of(cfg, model, images, masks), frames, clip_length=1).margins
                         for frames in (images[2:], images[2:].flip(0)))
    assert torch.equal(forward, backward.flip(0))


def test_training_shows_single_frames_and_no_memory(demo_root):
    """As many frames per sample as VIPMT, each a clip of its own; what a clip computes is what its frame alone does."""
    paper, ipmt = load_config(IPMT[:1]), load_config(IPMT)
    assert ipmt.data.clips == paper.data.clips * paper.data.clip_length
    cfg = load_config([DEMO, IPMT[1]], [*TINY, f"data.root={demo_root}", "data.clip_length=1", "data.clips=4",
                                        "train.batch_size=2"])
    torch.set_default_dtype(torch.float32)
    batch = next(iter(train_batches(cfg, build_index(cfg), 1, epoch=0)))
    method = get_method(cfg.model.method)
    step = method.TrainStep(method.build(cfg), cfg).eval()
    units = step.units(batch)
    assert len(units) == batch.query_images.shape[1] == 4 and units[0][0].memory_index == []
    for encoded, number in units:
        clip, truth, support, memory, _ = step.parts(encoded, number)
        assert memory is None and torch.equal(truth, batch.query_masks[:, number:number + 1])
        alone = step.model.prepare(step.model.encode(batch.query_images[:, number:number + 1]))
        found, expected = (step.model(x, support).logits for x in (clip, alone))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
