"""Correct and go on: what stays, what is exactly as drawn, what is segmented again and with what knowledge."""
import csv
import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import segment
from dataloaders.episode import Clip
from dataloaders.own.corrections import continued, read_corrected, read_result
from dataloaders.own.supports import Supports
from models import get_method
from segment import Segmenter
from utils.checkpoint import save_checkpoint
from utils.config import load_config, to_dict
from utils.pictures.overlay import save_palette_mask

TINY = ["data.size=[48, 80]", "data.shots=2", "data.clip_length=3", "backbone.width=8", "model.dim=16",
        "model.layers=2", "model.heads=2", "model.ffn_dim=16", "iou_net.dim=4", "iou_net.hidden=8",
        "memory.min_iou=0.0", "memory.length=2", "model.init=released"]     # balanced, these weights mark all
SIZE, FRAMES = (48, 80), 8


def picture(t):
    """A bright square that moves over a smooth ground"""
    rough = np.random.default_rng(0).integers(0, 120, (4, 4, 3)).astype(np.uint8)
    image = cv2.resize(rough, SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    image[box(t)] = (220, 200, 40)
    return image


def box(t):
    mask = np.zeros(SIZE, bool)
    mask[10:30, 6 * t:6 * t + 24] = True
    return mask


VIDEO = [picture(t) for t in range(FRAMES)]


def segmenter_of(*changes):
    """Random weights whose masks are neither empty nor full, with two supports"""
    cfg = load_config(["config/demo/ytvis.yaml"], [*TINY, *changes])
    torch.manual_seed(3)
    model = get_method(cfg.model.method).build(cfg).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.startswith("backbone"):
                weight.add_(0.05 * torch.randn_like(weight))
    segmenter = Segmenter(model, cfg)
    segmenter.set_support([picture(1), picture(6)], [box(1), box(6)])
    return segmenter


def masks_of(predictions):
    return [p.mask for p in predictions]


@pytest.mark.parametrize("changes", [(), ("memory.select=none",), (
    "model.method=propagation", "propagation.plug=matching", "propagation.min_pixels=1")],
    ids=["memory", "no memory", "propagation"])
def test_before_stays_the_corrected_is_exact_and_later_is_new(changes):
    segmenter = segmenter_of(*changes)
    first = list(segmenter.predictions(VIDEO))
    again = list(continued(segmenter, VIDEO, first, {4: box(4)}))
    assert [p.index for p in again] == list(range(FRAMES)) and again[4].mask.dtype == bool
    assert all(np.array_equal(first[t].margin, again[t].margin) and first[t].iou == again[t].iou for t in range(4))
    assert np.array_equal(again[4].mask, box(4)) and again[4].more == {"corrected": 1}
    assert all(not np.array_equal(first[t].margin, again[t].margin) for t in range(5, FRAMES))
    unchanged = list(continued(segmenter, VIDEO, again, {4: box(4)}))
    assert all(np.array_equal(a.margin, b.margin) for a, b in zip(again, unchanged, strict=True))


def test_the_corrected_frame_and_the_last_trusted_ones_are_in_memory():
    """By hand: the method's own Segmenter, its bank filled with the encoder's features of these frames and masks."""
    segmenter = segmenter_of()
    first = list(segmenter.predictions(VIDEO))
    again = list(continued(segmenter, VIDEO, first, {4: box(4)}))
    one, seen = segmenter._segmenter(segmenter.references()[0]), segmenter.transform
    images, masks = seen([VIDEO[t] for t in (2, 3, 4)], [first[2].mask, first[3].mask, box(4)])
    features = one.prepare(Clip(images))
    kept = segmenter.model.memory_features(features.levels)
    with torch.inference_mode():
        frames = segmenter.model.encode_memory(kept, masks[None], features.pooled).split()
    one.bank.frames, one.bank.numbers, one.bank.seen, one.bank.fixed = frames[:2], [0, 1], 2, frames[2:]
    clip = Clip(seen(VIDEO[5:8], [box(t) for t in (5, 6, 7)])[0])
    margins = one(one.prepare(clip), clip).margins[0].numpy()
    np.testing.assert_allclose(np.stack([p.margin for p in again[5:]]), margins, atol=1e-4)


def test_without_a_memory_the_frame_is_a_further_support():
    segmenter = segmenter_of("memory.select=none")
    again = list(continued(segmenter, VIDEO, list(segmenter.predictions(VIDEO)), {4: box(4)}))
    segmenter.set_support([picture(1), picture(6), VIDEO[4]], [box(1), box(6), box(4)])
    expected = list(segmenter.predictions(VIDEO[5:]))
    assert all(np.array_equal(a.margin, b.margin) for a, b in zip(again[5:], expected, strict=True))


def test_a_second_correction_keeps_the_first_wherever_it_is():
    segmenter = segmenter_of()
    first = list(segmenter.predictions(VIDEO))
    later = list(continued(segmenter, VIDEO, first, {6: box(6)}))
    both = list(continued(segmenter, VIDEO, later, {6: box(6), 2: box(2), 3: ~box(3)}))
    assert [p.index for p in both if "corrected" in p.more] == [2, 3, 6]
    assert np.array_equal(both[3].mask, ~box(3)) and np.array_equal(both[6].mask, box(6))
    assert not np.array_equal(both[7].margin, later[7].margin) and np.array_equal(both[1].margin, first[1].margin)


def test_several_categories_and_an_emptied_mask():
    segmenter = segmenter_of()
    one = Supports([picture(1)], [box(1)], ["a"])
    segmenter.set_supports({"square": one, "ground": Supports([picture(1)], [~box(1)], ["b"])})
    first, labels = list(segmenter.predictions(VIDEO)), np.where(box(4), 1, 2)
    again = list(continued(segmenter, VIDEO, first, {4: labels, 6: np.zeros(SIZE, int)}))
    assert np.array_equal(again[4].mask, labels) and not again[6].mask.any() and len(again) == FRAMES
    assert not np.array_equal(first[5].margin, again[5].margin)
    alone = list(continued(segmenter, VIDEO, first, {6: np.zeros(SIZE, int)}))
    assert np.array_equal(alone[7].mask, list(segmenter.predictions(VIDEO[7:]))[0].mask)     # it has learned nothing


def test_what_is_followed_starts_anew_from_the_mask():
    cfg = load_config([], ["model.method=tests.shape_method"])
    segmenter = Segmenter(get_method(cfg.model.method).build(cfg), cfg)
    segmenter.set_masks({0: box(0).astype(int)})
    first = list(segmenter.predictions(VIDEO))
    again = list(continued(segmenter, VIDEO, first, {3: 5 * (~box(3))}))
    assert masks_of(again[:3])[2].tolist() == first[2].mask.tolist() and np.array_equal(again[3].mask, 5 * ~box(3))
    segmenter.set_masks({0: 5 * (~box(3))})
    expected = masks_of(segmenter.predictions(VIDEO[3:]))
    assert all(np.array_equal(*pair) for pair in zip(masks_of(again[4:]), expected[1:], strict=True))
    assert set(np.unique(again[5].mask)) <= {0, 5}


def test_with_sentences_the_frame_is_a_support_at_the_others_size():
    cfg = load_config([], ["model.method=tests.sentence_method"])
    segmenter = Segmenter(get_method(cfg.model.method).build(cfg), cfg)
    segmenter.set_support([cv2.resize(picture(1), (64, 64))], [np.eye(64, dtype=bool)])
    segmenter.set_texts("a square", "a line")
    first = list(segmenter.predictions(VIDEO))
    again = list(continued(segmenter, VIDEO, first, {4: box(4)}))
    assert np.array_equal(again[4].mask, box(4)) and not np.array_equal(first[5].margin, again[5].margin)


def test_what_does_not_fit_is_told():
    segmenter = segmenter_of()
    first = list(segmenter.predictions(VIDEO))
    with pytest.raises(ValueError, match="frame 4 has 9 x 9 pixels"):
        list(continued(segmenter, VIDEO, first, {4: np.ones((9, 9), bool)}))
    with pytest.raises(ValueError, match="frame 99 has a corrected mask"):
        list(continued(segmenter, VIDEO, first, {99: box(4)}))
    with pytest.raises(ValueError, match="the same video"):
        list(continued(segmenter, VIDEO, first[::2], {4: box(4)}))


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """call(*arguments): segment.py with --output of this name  ->  its folder, rows of frames.csv"""
    segmenter = segmenter_of()
    save_checkpoint(tmp_path / "last.pth", {"model": segmenter.model.state_dict(), "config": to_dict(segmenter.cfg)})
    for folder, shown in (("video", range(FRAMES)), ("support", (1, 6))):
        (tmp_path / folder).mkdir()
        for t in shown:
            Image.fromarray(picture(t)).save(tmp_path / folder / f"{t}.jpg")
    for t in (1, 6):
        save_palette_mask(tmp_path / "support" / f"{t}.png", box(t))

    def start(output, *arguments):
        monkeypatch.setattr(sys, "argv", [
            "segment.py", "--support", f"{tmp_path}/support", "--video", f"{tmp_path}/video", "--checkpoint",
            f"{tmp_path}/last.pth", "--output", f"{tmp_path}/{output}", "--device", "cpu", *map(str, arguments)])
        segment.main()
        with open(tmp_path / output / "frames.csv", newline="") as file:
            return tmp_path / output, list(csv.DictReader(file))
    return start


def test_the_command_goes_on_from_a_result_and_from_that_again(call, tmp_path):
    first, rows = call("first", "--no-film")
    with pytest.raises(FileNotFoundError, match="nothing was corrected"):
        call("second", "--continue", first)
    save_palette_mask(first / "corrected" / "00004.png", box(4))
    second, found = call("second", "--continue", first)
    assert [{k: v for k, v in row.items() if k != "corrected"} for row in found[:4]] == rows[:4]
    assert [row["corrected"] for row in found] == ["", "", "", "", "1", "", "", ""] and not found[4]["predicted_iou"]
    masks = [p.mask for p in read_result(second)]
    assert np.array_equal(masks[4], box(4)) and [*read_corrected(second)] == [4]
    assert (second / "overlay.mp4").is_file() or (second / "overlay.webm").is_file()
    save_palette_mask(second / "corrected" / "00006.png", box(6))
    third, found = call("third", "--continue", second, "--no-film")
    assert [row["frame"] for row in found if row["corrected"]] == ["4", "6"]
    assert all(np.array_equal(a, p.mask) for a, p in zip(masks[:6], read_result(third), strict=False))
    with pytest.raises(ValueError, match="another --output"):
        call("third", "--continue", third)
    (third / "frames.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not written by segment"):
        list(read_result(third))
