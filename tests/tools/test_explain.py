"""tools/explain.py: the attention it shows is the model's, the page needs nothing but itself, mistakes are named."""
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from material import Parsed, episode_of, model_of, segmented, segmenter_of

from dataloaders import build_index
from dataloaders.episode import Clip
from dataloaders.fewshot.loaders import test_videos as videos_of
from models import vipmt
from models.vipmt.layer import weighted_sum
from tools import explain
from tools.explanation.capture import MOST_THUMBNAILS, Watch, capture, layer_attention, softmax_weights
from tools.explanation.pictures import colours, enlarge, heat_map
from utils.checkpoint import save_checkpoint
from utils.config import load_config, to_dict
from utils.evaluation.evaluate import evaluate
from utils.seeds import rng_for

TINY = ["data.size=[48, 80]", "data.shots=2", "data.clip_length=3", "data.few_videos=repeat", "backbone.width=8",
        "model.dim=16", "model.layers=2", "model.heads=2", "model.ffn_dim=16", "iou_net.dim=4", "iou_net.hidden=8",
        "memory.min_iou=0.0"]
BASELINE = ["model.memory_prototype=false", "model.frame_prototype=false"]


def trained(cfg, file):
    """A checkpoint of a model that was never trained; its supports and draws are those of a real one."""
    torch.manual_seed(1)
    save_checkpoint(file, {"model": vipmt.build(cfg).state_dict(), "config": to_dict(cfg), "fold": 1})
    return file


@pytest.fixture
def page(monkeypatch, demo_root, tmp_path):
    """page(*arguments): the tool on the small demo data  ->  the page as text"""
    def write(*arguments, settings=()):
        overrides = [f"data.root={demo_root}", *TINY, *settings]
        file = trained(load_config(["config/demo/ytvis.yaml"], overrides), tmp_path / "last.pth")
        line = ["--config", "config/demo/ytvis.yaml", "--fold", 1, "--checkpoint", file, "--output", tmp_path,
                *arguments]
        monkeypatch.setattr(sys, "argv", ["explain.py", *map(str, line), *overrides])
        args = explain.parse_arguments()
        return explain.explain(args, load_config(args.config, args.overrides)).read_text(encoding="utf-8")
    return write


# -- the attention is the model's -----------------------------------------------------------------------------------

def slow_weights(attention, prototype, features, mask):
    """Softmax of Eq. 4 position by position, keys formed one at a time  ->  (T, h, w); prototype (C,)"""
    q, scores = attention.to_q(prototype), torch.zeros(mask.shape, dtype=prototype.dtype)
    for t, i, j in np.ndindex(*mask.shape):
        scores[t, i, j] = q @ attention.to_k(features[t, :, i, j]) / len(q) ** 0.5 + (0 if mask[t, i, j] else -10000)
    exponential = (scores - scores.max()).exp()
    return exponential / exponential.sum()


@torch.no_grad()
@pytest.mark.parametrize("some", [True, False], ids=["masked", "empty_mask"])
def test_weights_equal_a_slow_loop_and_masked_positions_have_none(some):
    layer, features = model_of().double().layers[0], torch.randn(1, 2, 16, 3, 4, dtype=torch.float64)
    mask = (torch.rand(1, 2, 3, 4) > 0.5) & some
    prototype = torch.randn(1, 16, dtype=torch.float64)
    (weights, readable), = softmax_weights(layer.clip_attention, prototype, [(features, mask)])
    expected = slow_weights(layer.clip_attention, prototype[0], features[0], mask[0])
    torch.testing.assert_close(weights[0], expected, rtol=1e-6, atol=1e-9)
    assert torch.equal(readable, mask if some else torch.ones_like(mask))
    assert not weights[~readable].any()


@pytest.mark.parametrize("settings", [{}, {"memory_attention": "joint"}], ids=["separate", "joint"])
def test_weighted_values_are_the_prototypes_that_the_model_computed(settings):
    """Through the model's own values and MLP, the weights of the page give G^s, G^m, G^c and G^fi of every layer."""
    model, episode, checked = model_of(**settings), episode_of(frames=8), []

    def read(attention, weights, features):
        return attention.message(weighted_sum(torch.from_numpy(weights).flatten()[None], features))

    def check(layer, inputs, out):
        prototype, query, _, support, memory = inputs[:5]
        found = layer_attention(layer, *inputs[:5], out)
        sources = {"support": support, "memory": memory} if memory else {"support": support}
        for name, guidance in sources.items():
            message = read(layer.support_attention, found[name].weights, guidance.features)
            checked.append((layer.support_refine(message, prototype), getattr(out, f"{name}_proto")))
        message = read(layer.clip_attention, found["clip"].weights, query)
        checked.append((layer.clip_refine(message, prototype), out.clip_proto))
        for t, weights in enumerate(found["frame"].weights):
            message = read(layer.frame_attention, weights, query[:, t:t + 1])
            inter = layer.frame_refine(message, out.clip_inter) + out.clip_inter
            checked.append((model.mask_heads.frame(inter), out.frame_inter[:, t]))
        for name, attention in found.items():
            total = sum(found[n].weights.sum() for n in sources) if settings and name in sources else (
                attention.weights[0].sum() if name == "frame" else attention.weights.sum())
            assert total == pytest.approx(1, abs=1e-5)
            assert not attention.weights[~attention.readable].any()
    for layer in model.layers:
        layer.register_forward_hook(check)
    segmented(segmenter_of(model, episode), episode.query_images)
    assert len(checked) == 2 * (6 + 7)         # layers; the second clip has memory
    for found, expected in checked:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_watching_changes_nothing_and_leaves_no_hook():
    model, episode = model_of(), episode_of(frames=4)
    before = segmented(segmenter_of(model, episode), episode.query_images)
    with Watch(model) as watch:
        during = segmented(segmenter_of(model, episode), episode.query_images)
    assert torch.equal(before.margins, during.margins) and torch.equal(before.ious, during.ious)
    assert len(watch.clip.layers) == 2 and watch.clip.maps.shape[:2] == (4, 5)
    seen, watch.clip = watch.clip, None
    segmented(segmenter_of(model, episode), episode.query_images)
    assert watch.clip is None and seen.memory_masks is None


# -- the video ------------------------------------------------------------------------------------------------------

def captured(episode, clip_length=2, clip_number=None, **options):
    """A video of noise, clip by clip  ->  VideoView"""
    parts = (x.split(clip_length) for x in (episode.query_images, episode.query_masks))
    names, model = [f"{i:05d}.jpg" for i in range(len(episode.query_images))], model_of()
    clips = [Clip(images, masks[None]) for images, masks in zip(*parts, strict=True)]
    video = SimpleNamespace(frames=names, clips=clips)
    return capture(model, video, segmenter_of(model, episode, **options), clip_number)


@pytest.mark.parametrize("keep", [4, 1000])
def test_frames_read_from_memory_are_named_right(keep):
    """Every frame of a video of noise has a prototype of its own: a second run's draws are told by the nearest one."""
    episode, model, seen, drawn = episode_of(frames=17), model_of(), [], []
    segmenter = segmenter_of(model, episode, length=3, keep=keep)
    draws = segmenter.bank.draw

    def draw():
        memory = draws()
        read = [] if memory is None else memory.prototypes[0]
        drawn.append([int(np.argmin([(p - q).abs().sum() for q in seen])) for p in read])
        return memory
    segmenter.bank.draw = draw
    for clip in episode.query_images.split(2):
        masks = segmenter(segmenter.prepare(Clip(clip)), Clip(clip)).masks
        seen += model.encode_memory(model.memory_features(model.encode(clip[None])), masks).prototypes[0]
    view = captured(episode, length=3, keep=keep)
    assert view.memory == drawn and view.memory[0] == [] and len(view.memory[-1]) == 3


def test_the_last_clip_that_has_memory_is_shown_unless_another_is_asked_for():
    episode = episode_of(frames=7)
    assert captured(episode).detail.number == 3
    chosen = captured(episode, clip_number=1).detail
    assert (chosen.number, chosen.first, len(chosen.frames), chosen.memory) == (1, 2, 2, [0, 1])
    for found, number in zip(chosen.memory_frames, chosen.memory, strict=True):
        assert np.array_equal(found, captured(episode, clip_number=0).detail.frames[number])
    without = captured(episode, min_iou=1.1)
    assert without.detail.number == 3 and without.detail.memory == [] and without.detail.memory_masks is None


def test_long_videos_show_every_second_frame_or_fewer():
    view = captured(episode_of(frames=MOST_THUMBNAILS + 1, size=(32, 32)), clip_length=40, length=1)
    shown = [f.thumbnail is not None for f in view.frames]
    assert shown == [i % 2 == 0 for i in range(MOST_THUMBNAILS + 1)]


def test_numbers_are_those_of_the_test(demo_root, tmp_path):
    """J, predicted IoU and what is remembered: as evaluate() writes them for the same video."""
    cfg = load_config(["config/demo/ytvis.yaml"], [f"data.root={demo_root}", *TINY, "memory.length=2", "memory.keep=4",
                                                   "test.runs=1"])
    torch.manual_seed(1)
    model, index = vipmt.build(cfg).eval(), build_index(cfg, tmp_path)

    def start(reference):
        return vipmt.Segmenter(model, reference, cfg, rng=rng_for(cfg.seed, "memory", *reference.key))
    stream = videos_of(cfg, index, 1)
    stream.order = stream.order[:1]
    line, = evaluate(start, stream, cfg, lambda line: None)
    video = next(iter(stream))
    view = capture(model, video, start(video.references[0]))
    assert [f.name for f in view.frames] == line["frames"]
    np.testing.assert_allclose([f.j for f in view.frames], line["j"], atol=1e-6)
    np.testing.assert_allclose([f.predicted for f in view.frames], line["pred_iou"], atol=1e-6)
    assert [f.remembered for f in view.frames] == line["remembered"]


# -- pictures -------------------------------------------------------------------------------------------------------

def test_a_position_is_drawn_on_the_pixels_it_stands_for():
    frame, values, shown = np.full((20, 24, 3), 100, np.uint8), np.zeros((3, 3)), np.ones((3, 3), bool)
    values[1, 2], shown[2, 0] = 0.5, False
    assert np.argwhere(enlarge(values, (20, 24))).min(0).tolist() == [8, 16]
    assert enlarge(values, (20, 24)).shape == (20, 24)
    picture = heat_map(frame, values, shown=shown, top=0.5)
    assert picture.shape == (200, 240, 3)
    blend = (0.3 * 100 + 0.7 * colours(np.array([0.0, 1.0]))).round()
    assert np.array_equal(picture[5, 5], blend[0]) and np.array_equal(picture[120, 200], blend[1])
    assert (picture[180, 40] == 60).all()                     # masked: grey, no colour
    assert colours(1.0)[0] > 200 > 100 > colours(0.0)[1]      # yellow, violet


# -- the page -------------------------------------------------------------------------------------------------------

SECTIONS = ["video", "support", "activation", "layer1", "layer2", "final", "maps"]


def assert_self_contained(text):
    parsed = Parsed(text)
    assert parsed.images and all(image["src"].startswith("data:image/jpeg;base64,") for image in parsed.images)
    assert all(image["alt"].strip() for image in parsed.images)
    assert all(link.removeprefix("#") in parsed.ids for link in parsed.links)
    assert not parsed.tags & {"script", "link", "iframe", "object", "base"}
    without_pictures = re.sub(r"base64,[\w+/=]+", "", text)
    assert not re.search(r"https?:|file:|url\((?!#)|@import|src=\"(?!data:)", without_pictures)
    assert [name for name in parsed.ids if name in SECTIONS] == SECTIONS
    return parsed


def test_page_of_a_model_with_memory_shows_everything(page):
    text = page()
    parsed = assert_self_contained(text)
    alts = [image["alt"] for image in parsed.images]
    for what, count in {"support prototype": 4, "memory prototype": 4, "clip prototype": 4, "frame prototype": 4,
                        "prior over": 2, "initial mask": 2, "clip mask": 4, "frame mask of": 4, "final mask": 2,
                        "similarity map": 8, "as IoUNet sees it": 2, "predicted mask in red": 8}.items():
        assert sum(what in alt for alt in alts) == count, what
    for equation in ("Eq. 2", "Eq. 8", "Eq. 10", "Eq. 13", "Eq. 15", "Eq. 16", "Figure 2", "Figure 3"):
        assert equation in text
    for label in ("memory.min_iou = 0", "predicted IoU", "true IoU (J)", "read from memory: frame 0 (00000)"):
        assert label in text
    assert len(text) < 1e6


def test_page_of_the_baseline_leaves_out_what_it_lacks(page):
    text = page("--episode", 1, settings=BASELINE)
    alts = " ".join(image["alt"] for image in assert_self_contained(text).images)
    assert not re.search("memory prototype|frame prototype|similarity|IoUNet", alts)
    assert "no memory" in text and "No frame prototypes" in text and "no IoUNet" in text
    assert "memory.min_iou =" not in text and "predicted IoU</text>" not in text and "true IoU (J)</text>" in text


@pytest.mark.parametrize(("settings", "arguments", "sentence"), [
    ([], ["--clip", 0], "being the first clip"), (["memory.min_iou=1.0"], [], "no earlier frame was taken into it"),
    (["memory.select=none"], [], "memory.select is none"),
    (["iou_net.similarity_maps=false"], [], "sees the mask alone")])
def test_a_clip_without_memory_or_maps_says_why(page, settings, arguments, sentence):
    text = page(*arguments, settings=settings)
    assert_self_contained(text)
    assert sentence in text


def test_names_from_files_are_no_html(page, monkeypatch):
    monkeypatch.setattr(explain, "as_pixels", lambda images: np.zeros((2, 48, 80, 3), np.uint8))
    honest = explain.load_video

    def named(*arguments):
        number, clips, video = honest(*arguments)
        facts = video.references[0].facts[0]
        facts |= {"video": "../<script>alert('x')</script>", "class": '"><b>'}
        video.frames = ['a"<i>.jpg'] * len(video.frames)
        return number, clips, video
    monkeypatch.setattr(explain, "load_video", named)
    text = page()
    assert "<i>" not in text and "script" not in Parsed(text).tags


@pytest.mark.parametrize(("arguments", "message"), [
    (["--video", "demo_9999"], "--video demo_9999: no such test video of this fold.\n  There are .*demo_0"),
    (["--class", "striped"], "--class striped: no such test class of this fold.\n  There are 4, among them: .*striped"),
    (["--episode", "1000"], r"--episode 1000: the fold has \d+ test episodes; give 0 to \d+"),
    (["--episode", "-1"], "--episode -1"), (["--clip", "3"], "has 3 clips of 3 frames; give 0 to 2"),
    (["--run", "-1"], "runs are counted from 0"), (["--episode", "1", "--class", "x"], "not both"),
    (["model.method=iounet"], "only vipmt is explained")])
def test_mistakes_are_named_with_what_there_is(page, arguments, message):
    with pytest.raises(ValueError, match=re.compile(message, re.S)):
        page(*arguments)


def test_a_video_of_several_classes_needs_the_class():
    index = SimpleNamespace(path="train.json", class_name={1: "cat", 2: "dog"}.get)
    pairs = [(1, 7), (1, 8), (2, 8)]

    class Episodes(SimpleNamespace):
        def __len__(self):
            return len(self.pairs)
    episodes = Episodes(index=index, pairs=pairs, key=lambda i: (pairs[i][0], f"v{pairs[i][1]}"))
    with pytest.raises(ValueError, match="2 classes; add --class with one of: cat, dog"):
        explain.find_episode(episodes, video="v8")
    assert explain.find_episode(episodes, video="v8", class_name="dog") == 2
    assert explain.find_episode(episodes, video="v7") == 0 and explain.find_episode(episodes) == 0
    with pytest.raises(ValueError, match="no such test video of class dog"):
        explain.find_episode(episodes, video="v7", class_name="dog")
