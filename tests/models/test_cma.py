"""CMA: its parts against loops written from the equations, what may and what must not matter; numbers of the release:
workshop/test_parity_cma.py."""
import importlib.util
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from material import command, results_of
from referring_material import write_ref

import test
import train
from dataloaders.episode import Clip, ReferringBatch, ReferringSample, ReferringSupport
from models.cma import Segmenter, TrainStep, build, losses, parameter_groups
from models.cma.affinity import Affinity
from models.cma.decoder import Decoder
from models.cma.deformable import DeformableAttention, reference_points
from models.cma.fusion import amplify
from models.cma.mask_head import MaskHead
from models.cma.positions import padding_mask, pixel_code, valid_ratio
from models.cma.text import RobertaWords, SentenceReader, TinyWords, WordAttention, place_words
from utils.config import load_config
from utils.training.step import optimise

SMALL = ["model.method=cma", "backbone.name=resnet18", "backbone.weights=none", "text.encoder=tiny", "text.dim=16",
         "model.dim=64", "model.heads=2", "model.hidden=24", "model.layers=2", "model.dropout=0.0", "affinity.dim=12",
         "train.amp=off"]
SENTENCES = {"query_text": "a cat on the left", "support_text": "the cat"}


def model_of(*overrides):
    torch.manual_seed(3)
    cfg = load_config([], [*SMALL, *overrides])
    return build(cfg).eval(), cfg


def sample(frames=2, size=(40, 56), supports=3):
    """A ReferringSample: a square that moves, gone in frame 1"""
    generator = torch.Generator().manual_seed(4)
    masks = torch.zeros(frames + supports, *size, dtype=torch.bool)
    for t in range(len(masks)):
        masks[t, 8:24, 10 + t:30 + t] = t != 1
    boxes = torch.tensor([[10.0 + t, 8, 29 + t, 23] if t != 1 else [0.0] * 4 for t in range(frames)])
    images = torch.rand(frames + supports, 3, *size, generator=generator, dtype=torch.float32)
    images = images.to(torch.get_default_dtype())
    return ReferringSample(query_images=images[:frames], query_masks=masks[:frames], query_boxes=boxes,
                           query_valid=masks[:frames].flatten(1).any(1), support_images=images[frames:],
                           support_masks=masks[frames:], **SENTENCES)


def support_of(one):
    return ReferringSupport(one.support_images, one.support_masks, one.support_text, one.query_text)


def margins(model, cfg, one, reference=None):
    segmenter, clip = Segmenter(model, reference or support_of(one), cfg), Clip(one.query_images)
    return segmenter(segmenter.prepare(clip), clip).margins


# -- positions and padding --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [(4, 6), (2, 3), (1, 2), (32, 48)])
def test_padding_is_what_the_nearest_neighbour_of_the_whole_mask_says(size):
    whole = torch.ones(64, 96)
    whole[:50, :70] = 0
    expected = F.interpolate(whole[None, None], size)[0, 0] > 0
    assert torch.equal(padding_mask((50, 70), (64, 96), size, "cpu"), expected)


def test_position_codes_of_the_image_do_not_know_of_its_padding():
    """A padded clip gives other masks than an unpadded one (group norm and affinity see it), but no other codes."""
    padded, alone = torch.ones(6, 9, dtype=torch.bool), torch.zeros(4, 7, dtype=torch.bool)
    padded[:4, :7] = False
    torch.testing.assert_close(pixel_code(padded, 16)[:, :4, :7], pixel_code(alone, 16), rtol=0, atol=1e-12)
    assert valid_ratio(padded).tolist() == pytest.approx([7 / 9, 4 / 6])
    places = reference_points([padded, padded])[:, 0].unflatten(0, (2, 6, 9))[0]      # of level 0, within itself
    torch.testing.assert_close(places[1, 2], torch.tensor([2.5 / 9, 1.5 / 6], dtype=torch.float64))


def test_frames_are_padded_with_what_the_backbone_makes_zero(exact):
    model, _ = model_of()
    model.double()
    seen = []
    model.backbone.body.conv1.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    one = sample()
    frames = model.encode(one.query_images.double(), pad=True)
    assert frames.padded == (64, 64) and seen[0].shape[-2:] == (64, 64)
    assert not seen[0][..., 40:, :].any() and not seen[0][..., 56:].any() and seen[0][..., :40, :56].all()


# -- attention --------------------------------------------------------------------------------------------------------

def seen_at(level, x, y):
    """Bilinear value of (d, h, w) at (x, y) in [0, 1], zeros outside, pixel by pixel"""
    h, w = level.shape[-2:]
    x, y, total = x * w - 0.5, y * h - 0.5, 0
    for row in range(h):
        for column in range(w):
            near = (1 - (x - column).abs()).clamp(min=0) * (1 - (y - row).abs()).clamp(min=0)
            total = total + near * level[:, row, column]
    return total


@pytest.mark.parametrize("numbers", [2, 4])
def test_deformable_attention_equals_a_loop_with_its_gradients(numbers, double):
    heads, sizes = 2, [(3, 4), (2, 2)]
    attention = DeformableAttention(8, heads, levels=2, points=2)
    for p in attention.parameters():
        torch.nn.init.normal_(p, std=0.5)
    queries, values = torch.randn(2, 3, 8, requires_grad=True), torch.randn(2, 16, 8, requires_grad=True)
    reference, mask = torch.rand(2, 3, 2, numbers), torch.zeros(16, dtype=torch.bool)
    mask[[3, 7, 13]] = True
    found = attention(queries, reference, values, sizes, mask)

    places, weights = attention.places(queries, reference, sizes)
    projected = attention.values(values) * ~mask[:, None]
    levels = [part.mT.unflatten(2, size) for part, size in zip(projected.split([12, 4], 1), sizes, strict=True)]
    rows = []
    for t in range(2):
        for q in range(3):
            per_head = [sum(weights[t, q, k, n, p] * seen_at(levels[n][t, 4 * k:4 * k + 4], *places[t, q, k, n, p])
                            for n in range(2) for p in range(2)) for k in range(heads)]
            rows.append(attention.output(torch.cat(per_head)))
    expected = torch.stack(rows).unflatten(0, (2, 3))
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    for ours, loop in zip(*(torch.autograd.grad((out * weight).sum(), [queries, values], retain_graph=True)
                            for out in (found, expected)), strict=True):
        torch.testing.assert_close(ours, loop)


def test_offsets_are_pixels_of_a_level_or_shares_of_a_box(exact):
    attention = DeformableAttention(8, 8, levels=1, points=2)        # as initialised: compass directions, 1 and 2 steps
    point, _ = attention.places(torch.randn(1, 1, 8), torch.full((1, 1, 1, 2), 0.5), [(10, 20)])
    torch.testing.assert_close(point[0, 0, 0, 0], torch.tensor([[0.5 + 1 / 20, 0.5], [0.5 + 2 / 20, 0.5]]))
    torch.testing.assert_close(point[0, 0, 1, 0, 1], torch.tensor([0.5 + 2 / 20, 0.5 + 2 / 10]))      # max-norm 1
    box, weights = attention.places(torch.randn(1, 1, 8), torch.tensor([[[[0.5, 0.5, 0.4, 0.2]]]]), [(10, 20)])
    torch.testing.assert_close(box[0, 0, 1, 0, 1], torch.tensor([0.5 + 2 / 2 * 0.2, 0.5 + 2 / 2 * 0.1]))
    assert (weights == 0.5).all()


def test_padded_places_of_the_memory_say_nothing(exact):
    attention, mask = DeformableAttention(8, 2, levels=1), torch.zeros(12, dtype=torch.bool)
    mask[8:] = True
    queries, values = torch.randn(1, 2, 8), torch.randn(1, 12, 8)
    other = torch.where(mask[:, None], torch.randn(1, 12, 8), values)
    reference = torch.rand(1, 2, 1, 2)
    assert torch.equal(*(attention(queries, reference, x, [(3, 4)], mask) for x in (values, other)))


def test_words_are_read_as_by_multi_head_attention(double):
    attention, words = WordAttention(16, 4), place_words(torch.randn(1, 5, 16))
    for p in attention.parameters():
        torch.nn.init.normal_(p, std=0.5)
    queries = torch.randn(2, 7, 16)
    read = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    read.load_state_dict(attention.state_dict())
    found = attention(queries, words)
    expected = read(queries, words.keys.expand(2, -1, -1), words.features.expand(2, -1, -1), need_weights=False)[0]
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    for (name, ours), theirs in zip(attention.named_parameters(), read.parameters(), strict=True):
        grads = [torch.autograd.grad((out * weight).sum(), p, retain_graph=True)[0]
                 for out, p in ((found, ours), (expected, theirs))]
        torch.testing.assert_close(*grads, msg=name)


# -- affinity ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("support_frames, query_frames", [("middle", "middle"), ("all", "all")])
def test_affinity_equals_a_loop_over_positions(support_frames, query_frames, exact):
    affinity = Affinity(16, 4, support_frames=support_frames, query_frames=query_frames)
    query, features, masks = torch.randn(3, 16, 2, 3), torch.randn(5, 16, 4, 4), torch.rand(5, 9, 7) > 0.5
    used = affinity.chosen(5)
    out = affinity(affinity.read_itself(query), affinity.read_support(features[used], masks[used], (2, 3)))
    marked = affinity.mark(features, masks, (2, 3))
    assert torch.equal(marked[:, :, 0, 0], features[:, :, 0, 0] * masks[:, None, 0, 0])       # corners stay corners

    def rows(conv, x):
        return conv(x).permute(0, 2, 3, 1).reshape(-1, 4)

    def read(q, keys, values):
        weights = [((q * key).sum() / 4 ** 0.5).exp() for key in keys]
        return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)

    agent, support = (query[1:2], marked[2:3]) if support_frames == "middle" else (query, marked)
    keys, values = rows(affinity.query_key, agent), rows(affinity.query_value, agent)
    place = 0
    for q in rows(affinity.query_query, query):
        a = affinity.norm(q + read(q, keys, values))
        a = affinity.norm(a + read(a, rows(affinity.support_key, support), rows(affinity.support_value, support)))
        t, position = divmod(place, 6)
        torch.testing.assert_close(out[t, :4].flatten(1)[:, position], a)
        place += 1
    torch.testing.assert_close(out[:, 4:], affinity.reduce(query))


def test_equal_support_frames_say_the_same_all_or_the_middle_one(exact):
    features, masks = torch.randn(1, 16, 4, 4).expand(4, -1, -1, -1), torch.ones(1, 4, 4).expand(4, -1, -1)
    found = []
    for which in ("middle", "all"):
        torch.manual_seed(1)
        affinity, query = Affinity(16, 4, support_frames=which), torch.randn(2, 16, 3, 3)
        used = affinity.chosen(4)
        found.append(affinity(affinity.read_itself(query), affinity.read_support(features[used], masks[used], (3, 3))))
    torch.testing.assert_close(*found)


def test_ablations_pair_frames_and_longer_clips_take_the_support_in_turn(exact):
    query, marked = torch.randn(5, 16, 2, 2), torch.randn(2, 16, 2, 2)
    base, own = Affinity(16, 4, variant="base"), Affinity(16, 4, variant="self")
    torch.testing.assert_close(base(base.read_itself(query), (marked,)), query + marked[[0, 1, 0, 1, 0]])
    torch.testing.assert_close(own(own.read_itself(query), (marked,))[:, 4:], own.reduce(marked)[[0, 1, 0, 1, 0]])
    assert not list(base.parameters()) and not hasattr(own, "support_key")
    assert (base.chosen(5), Affinity(16, 4).chosen(5)) == (slice(None), slice(2, 3))


def test_amplify_is_odd_and_lifts_small_values():
    x = torch.tensor([-2.0, -1e-3, 0.0, 1e-3, 2.0], dtype=torch.float64)
    y = amplify(x)
    assert y[2] == 0 and torch.equal(y, -y.flip(0)) and y[3] > 0.02 and (y.diff() > 0).all()


# -- decoder and masks ------------------------------------------------------------------------------------------------

def test_first_layer_sees_boxes_or_as_released_one_number_of_each(exact):
    ratios, anchors = torch.rand(4, 2), torch.rand(2, 5, 4)
    right, released = (Decoder(32, 2, 8, 2, 0.0, broadcast_anchors=x) for x in (False, True))
    both = ratios[[0, 1, 2, 3]].repeat(1, 2)
    assert torch.equal(right.reference(0, anchors, ratios), anchors[:, :, None] * both)
    for level in range(4):
        expected = anchors[:, :, level, None] * both[level]
        assert torch.equal(released.reference(0, anchors, ratios)[:, :, level], expected)
    assert torch.equal(released.reference(1, anchors, ratios), right.reference(1, anchors, ratios))


def test_masks_by_hand_and_for_one_query_in_one_convolution(exact):
    head, last = MaskHead(4), torch.nn.Conv2d(4, 4, 3, padding=1)
    decoded, states, centres = torch.randn(2, 4, 3, 5), torch.randn(2, 3, 4), torch.rand(2, 3, 2) * 20
    masks = head(last(decoded), states, centres)
    numbers = head.controller(states[1, 2])
    (w1, w2, w3), (b1, b2, b3) = numbers[:120].split([48, 64, 8]), numbers[120:].split([8, 8, 1])
    x, y = centres[1, 2] - torch.tensor([4 * 3 + 2, 4 * 1 + 2])
    pixel = torch.cat([last(decoded)[1, :, 1, 3], torch.stack([x, y])])
    hidden = (w2.view(8, 8) @ (w1.view(8, 6) @ pixel + b1).relu() + b2).relu()
    torch.testing.assert_close(masks[1, 2, 1, 3], w3 @ hidden + b3[0])
    torch.testing.assert_close(head.one_per_frame(decoded, last, states[:, 1], centres[:, 1]), masks[:, 1])


# -- losses -----------------------------------------------------------------------------------------------------------

def test_losses_and_costs_by_hand(exact):
    logits, boxes, masks = torch.randn(3, 5), torch.rand(3, 5, 4), torch.randn(3, 5, 2, 2)
    target = losses.Target(torch.rand(3, 4), torch.tensor([True, False, True]), (torch.rand(3, 2, 2) > 0.5).double())
    target.boxes[1] = 0

    def focal(x, positive):
        p = x.sigmoid()
        return -0.25 * (1 - p) ** 2 * p.log() if positive else -0.75 * p ** 2 * (1 - p).log()

    q, found = 3, losses.layer_losses(logits, boxes, masks, target, torch.tensor(3))
    expected = [sum(focal(logits[t, k], k == q and t != 1) for t in range(3) for k in range(5)) / 2,
                sum((boxes[t, q] - target.boxes[t]).abs().sum() for t in range(3)) / 2]
    pairs = [(masks[t, q, i, j], target.masks[t, i, j]) for t in range(3) for i in range(2) for j in range(2)]
    mask = sum(focal(x, y > 0) for x, y in pairs) / 12
    both = (2 * sum(x.sigmoid() * y for x, y in pairs) + 1) / (sum(x.sigmoid() + y for x, y in pairs) + 1)
    torch.testing.assert_close(found[[0, 1, 3, 4]], torch.stack([*expected, mask / 2, (1 - both) / 2]))
    costs = losses.costs(logits, boxes, masks, target)
    torch.testing.assert_close(costs[q, 1:], torch.stack([expected[1] * 2 / 3, found[2] * 2 / 3 - 1, mask, -both]))
    torch.testing.assert_close(costs[q, 0], sum(focal(x, True) - focal(x, False) for x in logits[:, q]) / 3, rtol=0,
                               atol=1e-6)
    alone = losses.layer_losses(logits, boxes, masks, target, torch.tensor(3), absent=False, mask_frames=False)
    torch.testing.assert_close(alone[3], mask)
    torch.testing.assert_close(alone[1], sum((boxes[t, q] - target.boxes[t]).abs().sum() for t in (0, 2)) / 2)


def test_generalised_iou_by_hand_and_of_boxes_without_area():
    a = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.2, 0.2, 0.2, 0.2], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[0.5, 0.5, 0.4, 0.2], [0.8, 0.8, 0.2, 0.2], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert losses.giou(a, b).tolist() == pytest.approx([0.5, -(0.64 - 0.08) / 0.64, 0.0], abs=1e-4)


def test_a_clip_without_its_object_trains_finitely():
    model, cfg = model_of()
    one = sample()
    empty = replace(one, query_masks=one.query_masks & False, query_valid=one.query_valid & False,
                    query_boxes=one.query_boxes * 0)
    named, statistics = TrainStep(model, cfg)(empty)
    sum(named.values()).backward()
    assert all(x.isfinite() for x in [*named.values(), *statistics.values()])
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


# -- the whole --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("which", ["middle", "all"])
def test_which_support_frames_reach_an_output(which, exact):
    model, cfg = model_of(f"affinity.support_frames={which}")
    one = sample()
    before = margins(model, cfg, one)
    for s in range(3):
        images = one.support_images.clone()
        images[s] = images[s].flip(-1)
        reference = replace(support_of(one), images=images)
        assert torch.equal(margins(model, cfg, one, reference), before) == (which == "middle" and s != 1)


def test_support_and_sentences_are_read_once_for_all_windows(monkeypatch):
    model, cfg = model_of()
    asked, encoded = [], []
    model.read_by(lambda sentences: asked.extend(sentences) or TinyWords(16)(sentences))
    model.backbone.register_forward_pre_hook(lambda _, given: encoded.append(len(given[0])))
    one, clip = sample(), Clip(sample().query_images)
    for _ in range(2):
        segmenter = Segmenter(model, support_of(one), cfg)
        prepared = segmenter.prepare(clip)
        first, second = segmenter(prepared, clip), segmenter(prepared, clip)
        assert torch.equal(first.margins, second.margins)
    assert asked == ["the cat", "a cat on the left"] and encoded == [1, 2, 1, 2]
    assert first.margins.shape == (1, 2, 40, 56) and first.per_frame["score"].shape == (2,)
    assert first.per_frame["query_index"].unique().numel() == 1


def test_what_no_support_changes_is_computed_once_for_a_sentence(monkeypatch):
    model, cfg = model_of()
    one, clip, asked = sample(), Clip(sample().query_images), []
    other = replace(support_of(one), images=one.support_images.flip(-1))
    references = [support_of(one), other, replace(other, query_text="a dog"), other]
    alone = [margins(model, cfg, one, reference) for reference in references]
    read = model.read_fine
    monkeypatch.setattr(model, "ask", lambda *given, ask=model.ask: asked.append("words") or ask(*given))
    monkeypatch.setattr(model, "read_fine", lambda *given: asked.append("fine") or read(*given))
    segmenters = [Segmenter(model, reference, cfg) for reference in references]
    prepared = segmenters[0].prepare(clip)
    for segment, expected in zip(segmenters, alone, strict=True):
        assert torch.equal(segment(prepared, clip).margins, expected)
    assert asked == ["fine", "words", "words"] and not torch.equal(alone[0], alone[1])


def test_the_sentence_decides_and_its_case_does_not(exact):
    model, cfg = model_of()
    one = sample()
    for text, same in (("A cat  on the LEFT", True), ("a cat on the right", False)):
        reference = replace(support_of(one), query_text=text)
        assert torch.equal(margins(model, cfg, one, reference), margins(model, cfg, one)) == same


def test_the_best_query_is_the_one_of_the_whole_output(exact):
    model, cfg = model_of("model.sentence=true", "affinity.residual=false")
    one = sample()
    segmenter = Segmenter(model, support_of(one), cfg)
    frames = segmenter.prepare(Clip(one.query_images)).frames
    read = segmenter.support_at(tuple(tuple(level.shape[-2:]) for level in frames.levels))
    whole = model(frames, read, segmenter.words)
    chosen, masks, _ = model.best(frames, read, segmenter.words)
    assert chosen == whole.logits[-1].sigmoid().mean(0).argmax()
    torch.testing.assert_close(masks, whole.masks[-1][:, chosen])


@pytest.mark.parametrize("variant", ["cross", "self", "base"])
def test_every_trained_weight_gets_a_gradient(variant):
    model, cfg = model_of(f"affinity.variant={variant}")
    sum(TrainStep(model, cfg)(sample())[0].values()).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    grouped = [id(p) for group in parameter_groups(model, cfg) for p in group["params"]]
    assert not without and len(grouped) == len(set(grouped)) == sum(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in model.backbone.parameters())


def test_a_step_limits_the_gradient_and_leaves_what_the_release_never_trains():
    model, cfg = model_of("affinity.trained=false", "train.clip_norm=0.1", "train.optimizer=adamw")
    before = {name: p.clone() for name, p in model.named_parameters()}
    groups = [{"params": g["params"], "lr": 1e-3 * g.get("share", 1)} for g in parameter_groups(model, cfg)]
    state = SimpleNamespace(model=model, cfg=cfg, device=torch.device("cpu"), amp=None,
                            optimizer=torch.optim.AdamW(groups), scaler=torch.amp.GradScaler("cpu", enabled=False),
                            progress=SimpleNamespace(global_step=0))
    values, _ = optimise(state, TrainStep(model.train(), cfg), ReferringBatch([sample(), sample(frames=3)]))
    graded = [p.grad for p in model.parameters() if p.grad is not None]
    assert values["grad_norm"] > 0.1 and torch.nn.utils.get_total_norm(graded) == pytest.approx(0.1, rel=1e-3)
    still = {name for name, p in model.named_parameters() if torch.equal(p, before[name]) and p.requires_grad}
    convolutions = {name for name in before if name.startswith("affinity.") and "norm" not in name}
    assert still == convolutions and model.affinity.query_query.weight.grad.any()


def test_the_paper_s_network_has_the_released_sizes():
    """The release counts 295 040 more, which reach no output: the query of the support."""
    with torch.device("meta"):
        model = build(load_config(["config/cma/ytvos.yaml"]))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained + 9 * 256 * 128 + 128 == pytest.approx(30.29e6, abs=5e3)
    assert model.mask_head.controller[-1].out_features == 2153


# -- text -------------------------------------------------------------------------------------------------------------

def test_words_without_meaning_are_the_same_wherever_they_stand():
    features, mask = TinyWords(8)(["red cat", "a red cat"])
    assert features.shape == (2, 5, 8) and mask.tolist() == [[False] * 4 + [True], [False] * 5]
    place = [TinyWords(8).draw(f"position/{n}") for n in range(5)]
    torch.testing.assert_close(features[0, 1] - 0.1 * place[1], features[1, 2] - 0.1 * place[2])


def test_what_a_test_has_read_can_be_trained_on():
    reader = SentenceReader(TinyWords(8))
    with torch.inference_mode():
        reader("a cat")
    (reader("a cat") * torch.ones(8, requires_grad=True)).sum().backward()


@pytest.mark.skipif(importlib.util.find_spec("transformers") is not None, reason="transformers is installed")
def test_a_missing_package_is_told_in_one_sentence():
    with pytest.raises(ValueError, match="pip install transformers"):
        build(load_config([], [*SMALL, "text.encoder=FacebookAI/roberta-base"]), pretrained=True)


def test_a_roberta_of_a_folder_is_read(tmp_path):
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    words = ["<s>", "<pad>", "</s>", "<unk>", "a", "cat"]
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.post_processor = tokenizers.processors.TemplateProcessing("<s> $A </s>",
                                                                    special_tokens=[("<s>", 0), ("</s>", 2)])
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>").save_pretrained(tmp_path)
    network = transformers.RobertaModel(transformers.RobertaConfig(
        vocab_size=6, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=12, pad_token_id=1, type_vocab_size=1), add_pooling_layer=False).eval()
    network.save_pretrained(tmp_path)
    features, mask = RobertaWords(str(tmp_path))(["a cat", "a"])
    assert features.shape == (2, 4, 24) and mask.tolist() == [[False] * 4, [False] * 3 + [True]]
    expected = network(torch.tensor([[0, 4, 5, 2]])).last_hidden_state
    torch.testing.assert_close(features[:1], expected)


# -- commands ---------------------------------------------------------------------------------------------------------

def test_it_is_trained_and_tested_by_the_commands(monkeypatch, no_pages, tmp_path):
    root = write_ref(tmp_path / "Mini-Ref-YouTube-VOS", videos=2)
    data = [f"data.root={root}", "data.workers=0", "data.test_size=32", "data.sizes=[32]", "data.crop=0.0",
            "data.frames=2", "data.support_frames=2", "data.samples_per_class=1", "train.batch_size=1",
            "train.epochs=1", "train.log_every=1", "validate.classes=none", "test.window=4", "test.runs=1", *SMALL]
    command(monkeypatch, train, "--fold", 1, "--output", tmp_path / "run", *data, config=())
    command(monkeypatch, test, "--fold", 1, "--checkpoint", tmp_path / "run/last.pth", "--output", tmp_path / "test",
            *data, config=())
    lines = results_of(tmp_path / "test")
    assert {line["class"] for line in lines} == {"cat", "bird"}
    assert all(0 <= j <= 1 for line in lines for j in line["j"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_says_what_the_cpu_says(monkeypatch, exact):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model, cfg = model_of()
    on_cpu = margins(model, cfg, sample())
    torch.testing.assert_close(margins(model.cuda(), cfg, sample()).cpu(), on_cpu)
