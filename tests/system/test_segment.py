"""segment.py: the masks of test.py, at any size, in bounded memory; what it writes, and what it keeps if it stops."""
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import weakref
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import segment
import test as test_script
from dataloaders import build_index
from dataloaders.datasets.folds import split_classes
from dataloaders.fewshot.streaming import TestEpisodes
from dataloaders.images import as_picture
from dataloaders.own.supports import Supports, read_supports
from dataloaders.own.video import Frame
from models import get_method
from segment import Segmenter
from tools.demo_data.clip import CATEGORY, write_demo_clip
from tools.demo_data.scene import CATEGORIES
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.config import load_config, to_dict, user_errors
from utils.pictures.caption import caption
from utils.pictures.film import Film
from utils.records import read_json_lines
from utils.seeds import rng_for

TINY = ["data.size=[48, 80]", "data.shots=2", "data.clip_length=3", "data.few_videos=repeat", "backbone.width=8",
        "model.dim=16", "model.layers=2", "model.heads=2", "model.ffn_dim=16", "iou_net.dim=4", "iou_net.hidden=8",
        "memory.min_iou=0.0", "memory.length=2", "model.init=released"]     # balanced, these weights mark all


@pytest.fixture(scope="session")
def checkpoint(demo_root, tmp_path_factory):
    """Random weights whose masks are neither empty nor full, as train.py would write them for fold 1."""
    cfg = load_config(["config/demo/ytvis.yaml"], [*TINY, f"data.root={demo_root}"])
    torch.manual_seed(3)
    model = get_method(cfg.model.method).build(cfg).eval()
    path = tmp_path_factory.mktemp("checkpoint") / "last.pth"
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.startswith("backbone"):
                weight.add_(0.05 * torch.randn_like(weight))
    save_checkpoint(path, {"model": model.state_dict(), "config": to_dict(cfg), "fold": 1})
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """support/, a film of 8 frames of 96 x 160 pixels and frames/, the same as pictures"""
    root = tmp_path_factory.mktemp("clip") / "clip"
    write_demo_clip(root, partial(Film, fps=8), size=(48, 80), frames=(8, 8))
    reader, t = cv2.VideoCapture(str(next(root.glob("video.*")))), 0
    (root / "frames").mkdir()
    while (entry := reader.read())[0]:
        cv2.imwrite(str(root / "frames" / f"{t}.png"), entry[1])
        t += 1
    return root


def test_names_that_are_no_utf8_go_through(call, clip, tmp_path):
    """Of the supports, of their categories, of a file of them, and of the result."""
    name = os.fsdecode(b"caf\xe9")
    for folder in (name, "dog"):
        shutil.copytree(clip / "support", tmp_path / "two" / folder)
    picture = next((tmp_path / "two" / name).glob("*.jpg"))
    for path in (picture, picture.with_suffix(".png")):
        path.rename(path.with_stem(name))
    output, _ = call("--end", "2f", output=name, support=tmp_path / "two")
    assert "caf\\udce9 area" in (output / "frames.csv").read_text() and len(list((output / "masks").iterdir())) == 2
    call("--end", "1f", "--save-support", tmp_path / f"{name}.support", support=tmp_path / "two" / name)
    assert "caf\\udce9.jpg" in read_supports(tmp_path / f"{name}.support").names


def test_one_result_at_a_time_is_written_into_a_folder(call, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "frames.csv").symlink_to(tmp_path / "elsewhere")
    call("--end", "1f")
    assert not (tmp_path / "elsewhere").exists()
    hold = "import sys; from utils.files import owned\nwith owned(sys.argv[1]): print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", hold, tmp_path / "out"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match="belongs to a run that is going on"):
            call("--end", "1f")
        other.communicate(b"\n")
    assert len((tmp_path / "out" / "frames.csv").read_text().splitlines()) == 2


@pytest.fixture
def call(monkeypatch, checkpoint, clip, tmp_path, capsys):
    """call(*arguments, **replaced): segment.py as a user calls it  ->  output folder, what it prints"""
    def start(*arguments, output="out", **replaced):
        given = {"support": clip / "support", "video": clip / "frames", "checkpoint": checkpoint,
                 "output": tmp_path / output, "device": "cpu"} | replaced
        named = [text for name, value in given.items() for text in (f"--{name}", str(value))]
        monkeypatch.setattr(sys, "argv", ["segment.py", *named, *map(str, arguments)])
        segment.main()
        return tmp_path / output, capsys.readouterr().out
    return start


def segmenter_of(checkpoint, clip, **options):
    segmenter = Segmenter.from_checkpoint(checkpoint, **options)
    segmenter.set_support(*read_supports(clip / "support"))
    return segmenter


def masks_in(folder):
    return {int(path.stem): np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))}


def rows_of(output):
    with open(output / "frames.csv", newline="") as file:
        return list(csv.DictReader(file))


# -- the same as a test ---------------------------------------------------------------------------------------------

def saved_test(monkeypatch, checkpoint, demo_root, output):
    """test.py as a user calls it, masks at the videos' own size  ->  lines of its results"""
    monkeypatch.setattr(sys, "argv", [
        "test.py", "--config", "config/demo/ytvis.yaml", "--fold", "1", "--checkpoint", str(checkpoint),
        "--device", "cpu", "--output", str(output), "--save-masks", str(output / "masks"), *TINY,
        f"data.root={demo_root}", "test.resolution=original"])
    test_script.main()
    return {(line["class_id"], line["video"]): line for line in read_json_lines(output / "results.jsonl")}


def test_masks_are_those_of_test_py(monkeypatch, checkpoint, demo_root, tmp_path):
    """The same supports, frames and draws of the memory: every pixel of every novel video, whatever its size."""
    lines = saved_test(monkeypatch, checkpoint, demo_root, tmp_path)
    segmenter = Segmenter.from_checkpoint(checkpoint)
    cfg, sizes, values = segmenter.cfg, set(), []
    index = build_index(cfg)
    episodes = TestEpisodes(index, index.side(1, "test")[1], cfg, run=0)
    for i in range(len(episodes)):
        plan, (class_id, name) = episodes.plan(i), episodes.key(i)
        supports = episodes.load(plan)[2]
        segmenter.set_support([index.read_image(*pair) for pair in supports],
                              [index.read_mask(*pair, class_id) for pair in supports])
        frames = (index.read_image(plan.video, frame) for frame in plan.frames)
        found = list(segmenter.predictions(frames, rng_for(cfg.seed, "memory", 0, class_id, name)))
        folder = tmp_path / "masks" / "run0" / index.class_name(class_id) / name
        tested = [np.asarray(Image.open(folder / f"{Path(index.file_name(plan.video, frame)).stem}.png"))
                  for frame in plan.frames]
        assert np.array_equal(np.stack([p.mask for p in found]), np.stack(tested)), (class_id, name)
        line = lines[class_id, name]
        np.testing.assert_allclose([p.iou for p in found], line["pred_iou"], atol=1e-6)
        assert [p.remembered for p in found] == line["remembered"]
        sizes.add(found[0].mask.shape)
        values += [p.mask.mean() for p in found]
    assert len(values) > 40 and len(sizes) > 1 and 0.02 < np.mean(values) < 0.98
    assert np.mean([0 < value < 1 for value in values]) > 0.5         # and not just full or empty masks


def test_the_memory_draws_matter_and_follow_from_the_seed(checkpoint, clip):
    segmenter = segmenter_of(checkpoint, clip)
    first, again, other = (np.stack([p.margin for p in segmenter.predictions(clip / "frames", rng)])
                           for rng in (None, None, np.random.default_rng(1)))
    assert np.array_equal(first, again) and not np.array_equal(first[3:], other[3:])
    assert np.array_equal(first[:3], other[:3])                       # the first clip draws nothing


# -- supports as a file, several categories -----------------------------------------------------------------------

def test_supports_in_a_file_give_the_same_masks_and_are_not_encoded_again(call, checkpoint, clip, tmp_path):
    file = tmp_path / "disc.support"
    expected, _ = call("--save-support", file)
    monkey, encoded = Segmenter.from_checkpoint(checkpoint), []
    monkey.model.backbone.register_forward_hook(lambda module, given, output: encoded.append(given[0].shape[1]))
    found = read_supports(file)
    monkey.set_supports({"disc": found})
    masks = list(monkey(clip / "frames"))
    assert encoded == [3, 3, 2] and found.made_by == monkey.made_by           # the clips alone
    assert all(np.array_equal(mask, masks_in(expected / "masks")[t]) for t, mask in enumerate(masks))
    again, _ = call(support=file, output="again")
    assert masks_in(again / "masks").keys() == masks_in(expected / "masks").keys()
    other = Segmenter.from_checkpoint(checkpoint, overrides=["data.size=[40, 80]"])           # computes something else
    other.set_supports({"disc": found})
    assert other.made_by != found.made_by and not other.supports["disc"].encoded


def test_a_support_that_the_others_do_not_find_is_named(checkpoint, clip, tmp_path, caplog, monkeypatch):
    segmenter, given = Segmenter.from_checkpoint(checkpoint), read_supports(clip / "support")
    four = Supports(given.images * 2, given.masks * 2, ["a", "b", "c", "d"])
    values = segmenter.agreement(segmenter.as_seen(four))
    assert len(values) == 4 and all(0 <= value <= 1 for value in values) and values[0] == pytest.approx(values[2])
    assert segmenter.agreement(segmenter.as_seen(given)) == []               # two cannot be judged
    monkeypatch.setattr(segmenter, "agreement", lambda seen: [0.8, 0.9, 0.2, 0.7])
    segmenter.save_support(tmp_path / "x.support", four)
    assert "c: the other supports find its object with IoU 0.20, theirs with 0.75" in caplog.text
    assert caplog.text.count("the other supports") == 1
    assert read_supports(tmp_path / "x.support").agreement == [0.8, 0.9, 0.2, 0.7]


def test_the_end_names_outliers_and_says_when_no_frame_is_trusted(call, monkeypatch):
    monkeypatch.setattr(Segmenter, "agreement", lambda self, seen: [0.8, 0.2])
    _, said = call("memory.min_iou=1.0")
    assert "No frame is trusted: the model expects an IoU below 1.0" in said and said.count("the other supports") == 1
    _, said = call(output="trusted")
    assert "No frame is trusted" not in said


def test_saving_supports_needs_no_video_and_holds_one_category(call, monkeypatch, checkpoint, clip, tmp_path, capsys):
    line = ["segment.py", "--support", str(clip / "support"), "--checkpoint", str(checkpoint), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [*line, "--save-support", str(tmp_path / "a.support")])
    segment.main()
    assert "a.support: 2 supports" in capsys.readouterr().out and (tmp_path / "a.support").is_file()
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit):
        segment.main()
    with pytest.raises(ValueError, match="one file holds one category"):
        call("--support", tmp_path / "a.support", "--save-support", tmp_path / "b.support")


def two_categories(clip, root):
    """A folder of two support folders: the clip's, and the same with other pixels marked"""
    shutil.copytree(clip / "support", root / "disc")
    shutil.copytree(clip / "support", root / "other")
    for path in (root / "other").glob("*.png"):
        mask = np.asarray(Image.open(path)) > 0
        Image.fromarray(np.where(mask, 0, 255).astype(np.uint8)).save(path)
    return root


def test_several_categories_are_one_pass_and_the_larger_margin_wins(call, checkpoint, clip, tmp_path):
    root, segmenter, encoded = two_categories(clip, tmp_path / "both"), Segmenter.from_checkpoint(checkpoint), []
    given = {name: read_supports(root / name) for name in ("disc", "other")}
    alone = []
    for o, supports in enumerate(given.values()):
        segmenter.set_supports({"x": supports})
        rng = rng_for(segmenter.cfg.seed, "memory", "segment", o) if o else None
        alone.append(np.stack([p.margin for p in segmenter.predictions(clip / "frames", rng)]))
    segmenter.set_supports(given)
    segmenter.model.backbone.register_forward_hook(lambda module, given, output: encoded.append(given[0].shape[1]))
    found = list(segmenter.predictions(clip / "frames"))
    assert encoded == [2, 2, 3, 3, 2]                                          # supports of each, every frame once
    margins = np.stack(alone)
    expected = np.where(margins.max(0) > 0, margins.argmax(0) + 1, 0)
    assert np.array_equal(np.stack([p.mask for p in found]), expected) and {0, 1, 2} >= set(np.unique(expected))
    assert len(np.unique(expected)) > 1
    for p, labels in zip(found, expected, strict=True):
        assert [p.more[f"{name} area"] for name in given] == [(labels == n).sum() for n in (1, 2)]
    for support in (root, root / "disc"):
        more = [] if support == root else ["--support", root / "other"]
        output, said = call(*more, support=support, output=support.name)
        masks = masks_in(output / "masks")
        assert all(np.array_equal(masks[t], labels) for t, labels in enumerate(expected))
    assert rows_of(output)[0].keys() >= {"disc area", "other predicted_iou"} and "1 disc, 2 other" in said
    assert json.loads((output / "summary.json").read_text())["categories"] == {"1": "disc", "2": "other"}
    call(support=root / "disc", output="disc")                                 # replaces what lies there
    with pytest.raises(ValueError, match="two are called disc"):
        call("--support", root / "disc", support=root / "disc")


def test_an_absent_object_is_not_marked_and_all_outputs_say_so(call, checkpoint, clip):
    plain = masks_in(call()[0] / "masks")
    output, said = call("--absent", 0.000001, output="never")                 # so little that it is always there
    assert all(np.array_equal(plain[t], mask) for t, mask in masks_in(output / "masks").items())
    assert [row["present"] for row in rows_of(output)] == ["1"] * 8 and "absent in 0 frames" in said
    output, said = call("--absent", 0.999999, output="always")
    assert not any(mask.any() for mask in masks_in(output / "masks").values()) and "absent in 8 frames" in said
    assert [row["present"] for row in rows_of(output)] == ["0"] * 8
    assert json.loads((output / "summary.json").read_text())["absent"] == 8
    for wrong in ("maybe", "2", "0", "nan"):
        with pytest.raises(ValueError, match="--absent"):
            Segmenter.from_checkpoint(checkpoint, absent=wrong)


# -- instances ------------------------------------------------------------------------------------------------------

def test_instances_have_numbers_in_masks_table_tracks_and_python(call, checkpoint, clip):
    plain = masks_in(call()[0] / "masks")
    output, said = call("--instances", "--soft")
    masks, rows = masks_in(output / "masks"), rows_of(output)
    summary = json.loads((output / "summary.json").read_text())
    segmenter = segmenter_of(checkpoint, clip, instances=True)
    assert all(np.array_equal(masks[p.index], p.mask) for p in segmenter.predictions(clip / "frames"))
    tracks = json.loads((output / "tracks.json").read_text())
    numbers = {str(a["id"]): "support" for a in tracks["annotations"]}
    assert numbers and summary["objects"] == numbers and f"; {len(numbers)} support." in said and "tracks.json" in said
    least = 0.001 * masks[0].size
    for t, mask in masks.items():
        assert rows[t]["objects"].split() == [str(n) for n in np.unique(mask[mask > 0])]
        assert not mask[plain[t] == 0].any()
        missing = cv2.connectedComponentsWithStats(((plain[t] > 0) & (mask == 0)).astype(np.uint8))[2][1:, 4]
        assert not len(missing) or missing.max() < least
        for one in tracks["annotations"]:
            assert (one["areas"][t] or 0) == (mask == one["id"]).sum()
    assert tracks["videos"][0]["file_names"][0] == "frames/0.png" and (output / summary["film"]).is_file()
    output, said = call()                                                      # and nothing of it is left
    assert not list(output.glob("tracks*")) and json.loads((output / "summary.json").read_text())["objects"] is None


def test_instances_of_several_categories_and_with_a_plug(call, clip, tmp_path):
    root = two_categories(clip, tmp_path / "both")
    for follow in ([], ["--follow", "first_mask"]):
        output, said = call("--instances", *follow, support=root, video=next(clip.glob("video.*")))
        tracks = json.loads((output / "tracks.json").read_text())
        assert [c["name"] for c in tracks["categories"]] == ["disc", "other"] and "1 disc, 2 other" not in said
        assert tracks["videos"][0]["file_names"][0] == "video/00000.jpg" and tracks["annotations"]
    with pytest.raises(ValueError, match="--follow says what follows the objects of --instances"):
        call("--follow", "first_mask")
    with pytest.raises(ValueError, match="propagation.plug: cannot read 'nothing'"):
        call("--instances", "--follow", "nothing=x.pth")
    with pytest.raises(ValueError, match="lwl needs a checkpoint of its own training"):
        call("--instances", "--follow", "lwl")
    with pytest.raises(ValueError, match="--instances is for few-shot methods"):
        Segmenter(None, load_config([], ["model.method=first_mask"]), instances=True)


def test_instances_of_a_broken_video_keep_what_was_computed(call, clip, tmp_path):
    shutil.copytree(clip / "frames", tmp_path / "frames")
    (tmp_path / "frames" / "4.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="(frame 4)"):
        call("--instances", video=tmp_path / "frames")
    assert list(masks_in(tmp_path / "out" / "masks")) == [0, 1, 2, 3]
    assert json.loads((tmp_path / "out" / "tracks.json").read_text())["videos"][0]["length"] == 4
    (tmp_path / "frames" / "4.png").unlink()
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(tmp_path / "frames" / "4.png")
    with pytest.raises(ValueError, match="frame 4 has .*\n  Leave --instances out where sizes change"):
        call("--instances", video=tmp_path / "frames")


# -- the Python interface -------------------------------------------------------------------------------------------

def test_three_lines_of_python_give_masks_at_the_videos_size(checkpoint, clip):
    images = [cv2.cvtColor(cv2.imread(str(clip / "support" / f"{k}.jpg")), cv2.COLOR_BGR2RGB) for k in range(2)]
    masks = [cv2.imread(str(clip / "support" / f"{k}.png"), cv2.IMREAD_GRAYSCALE) for k in range(2)]
    segmenter = Segmenter.from_checkpoint(checkpoint, "cpu")
    segmenter.set_support(images, masks)
    found = list(segmenter(clip / "frames"))
    assert len(found) == 8 and {mask.shape for mask in found} == {(96, 160)} and found[0].dtype == bool
    again = segmenter_of(checkpoint, clip)
    assert all(np.array_equal(a, b) for a, b in zip(found, again(str(clip / "frames")), strict=True))


def test_numpy_and_torch_give_the_same(checkpoint, clip):
    supports = read_supports(clip / "support")
    frames = [as_picture(Image.open(clip / "frames" / f"{t}.png"), "frame") for t in range(8)]
    expected = None
    for convert in (np.asarray, lambda x: torch.tensor(x).permute(2, 0, 1) / 255, Image.fromarray):
        segmenter = Segmenter.from_checkpoint(checkpoint)
        segmenter.set_support(list(map(convert, supports.images)), list(map(torch.tensor, supports.masks)))
        found = np.stack(list(segmenter(map(convert, frames))))
        expected = found if expected is None else expected
        assert np.array_equal(found, expected)


def test_frames_of_any_size_get_masks_of_their_size(checkpoint, clip):
    """Each as it would be alone in its clip's place: sizes may differ even within a clip."""
    segmenter, frames = segmenter_of(checkpoint, clip), []
    for t, size in enumerate([(96, 160), (200, 50), (31, 33), (96, 160), (1, 300)]):
        frames.append(np.random.default_rng(t).integers(0, 255, (*size, 3), np.uint8))
    found = list(segmenter.predictions(frames))
    assert [p.mask.shape for p in found] == [p.margin.shape for p in found] == [f.shape[:2] for f in frames]
    assert [p.index for p in found] == [0, 1, 2, 3, 4] and all(p.frame.image is not None for p in found)


def test_the_threshold_is_one_of_probability_and_leaves_the_memory_alone(checkpoint, clip):
    plain, low, high = (list(segmenter_of(checkpoint, clip, threshold=t).predictions(clip / "frames"))
                        for t in (0.5, 0.3, 0.7))
    for a, b, c in zip(plain, low, high, strict=True):
        assert np.array_equal(a.margin, b.margin) and np.array_equal(a.margin, c.margin)
        probability = 1 / (1 + np.exp(-a.margin.astype(np.float64)))
        np.testing.assert_allclose(a.probability, probability, atol=1e-6)
        sure = np.abs(probability[None] - np.array([0.3, 0.5, 0.7])[:, None, None]).min(axis=0) > 1e-5
        for p, threshold in ((a, 0.5), (b, 0.3), (c, 0.7)):
            assert np.array_equal(p.mask[sure], (probability > threshold)[sure])
    for wrong in (0, 1, -1, float("nan")):
        with pytest.raises(ValueError, match="--threshold"):
            Segmenter.from_checkpoint(checkpoint, threshold=wrong)


class Source:
    """Frames that are drawn one at a time; knows how many of them exist."""

    def __init__(self, count):
        self.count, self.live, self.most = count, weakref.WeakSet(), 0

    def __iter__(self):
        for t in range(self.count):
            frame = Frame(t, 0.0, np.full((20, 30, 3), t % 256, np.uint8))
            self.live.add(frame)
            self.most = max(self.most, len(self.live))
            yield frame
            del frame


def test_memory_does_not_grow_with_the_length_of_the_video(checkpoint, clip):
    """Counted: images that are alive at once, and frames in the memory bank, which memory.keep bounds."""
    segmenter, most = segmenter_of(checkpoint, clip, overrides=["memory.keep=4"]), []
    for count in (9, 60):
        source, frames = Source(count), 0
        for _ in segmenter(source):
            frames += 1
        assert frames == count
        most.append(source.most)
    assert most[0] == most[1] <= 2 * segmenter.cfg.data.clip_length


def test_frames_are_read_when_they_are_due(checkpoint, clip):
    """A camera: the first masks come once the first clip is there, not at the end."""
    segmenter, read = segmenter_of(checkpoint, clip), []

    def frames():
        for t in range(100):
            read.append(t)
            yield np.zeros((20, 30, 3), np.uint8)
    next(segmenter(frames()))
    assert len(read) == segmenter.cfg.data.clip_length


@pytest.mark.parametrize("method", ["vipmt", "propagation"])
def test_any_registered_method_that_segments_can_be_used(checkpoint, clip, method):
    segmenter = segmenter_of(checkpoint, clip, overrides=[f"model.method={method}"])
    found = list(segmenter.predictions(clip / "frames"))
    assert len(found) == 8 and (found[0].iou is None) == (method == "propagation")


def test_a_plug_follows_the_mask_of_the_first_frame(call, clip):
    """Here one that keeps it where it is; a first mask that is never large enough leaves all frames to the model."""
    follow = ["--method", "propagation", "propagation.plug=first_mask"]
    masks = masks_in(call(*follow)[0] / "masks")
    assert len(masks) == 8 and masks[0].any() and (masks[0] == masks[1]).mean() > 0.9      # at input size the same
    assert all(np.array_equal(masks[t], masks[1]) for t in range(2, 8))
    output, _ = call(*follow, "propagation.min_pixels=1000000", output="own")
    own = masks_in(output / "masks")
    assert not all(np.array_equal(own[t], own[1]) for t in range(2, 8))
    assert "propagation.plug=first_mask" in json.loads((output / "summary.json").read_text())["settings"]["overrides"]


def test_mistakes_in_python_are_named(checkpoint, clip):
    segmenter = Segmenter.from_checkpoint(checkpoint)
    image, mask = np.zeros((20, 30, 3), np.uint8), np.ones((20, 30), bool)
    with pytest.raises(ValueError, match="set_support"):
        segmenter(clip / "frames")                                    # at once, not at the first mask
    for images, masks, reason in (
            ([], [], "0 images and 0 masks"), ([image], [mask, mask], "1 images and 2 masks"),
            ([image], [mask.T], "shape"), ([image], [~mask], "empty"), ([image / 0.5 + 2], [mask], "normalised")):
        with pytest.raises(ValueError, match=reason):
            segmenter.set_support(images, masks)
    speck = np.zeros((2000, 3000), bool)
    speck[1, 1] = True
    with pytest.raises(ValueError, match="support 1: its object is too small: .* 48 x 80 pixels"):
        segmenter.set_support([image, np.zeros((2000, 3000, 3), np.uint8)], [mask, speck])
    with pytest.raises(ValueError, match="memory.select: oracle needs true masks"):
        Segmenter.from_checkpoint(checkpoint, overrides=["memory.select=oracle"])


def test_every_checkpoint_that_cannot_be_used_says_how_to_get_one(checkpoint, tmp_path):
    weights = load_checkpoint(checkpoint)
    cases = {"plain": weights["model"], "without": {"model": weights["model"]},
             "other": weights | {"config": weights["config"] | {"model": weights["config"]["model"] | {"dim": 32}}}}
    for name, content in cases.items():
        save_checkpoint(tmp_path / f"{name}.pth", content)
    (tmp_path / "junk.pth").write_bytes(b"junk")
    for file, reason in (("none.pth", "no file .*\n.*make demo"), ("plain.pth", "no entry 'model'.*\n.*make demo"),
                         ("without.pth", "does not say its config.\n.*--config"), ("junk.pth", "not a checkpoint"),
                         ("other.pth", "do not fit the model")):
        with pytest.raises((ValueError, FileNotFoundError), match=reason):
            Segmenter.from_checkpoint(tmp_path / file)
    with pytest.raises(FileNotFoundError, match="none was named.\n.*make demo"):
        Segmenter.from_checkpoint(None)
    named = Segmenter.from_checkpoint(tmp_path / "without.pth", config=["config/demo/ytvis.yaml"], overrides=TINY)
    assert named.cfg.data.size == [48, 80]


# -- the command ----------------------------------------------------------------------------------------------------

def test_the_command_writes_what_python_gives(call, checkpoint, clip):
    output, said = call("--soft")
    found = list(segmenter_of(checkpoint, clip).predictions(clip / "frames"))
    masks, soft, rows = masks_in(output / "masks"), masks_in(output / "soft"), rows_of(output)
    assert list(masks) == list(soft) == [int(row["frame"]) for row in rows] == list(range(8))
    for prediction, row in zip(found, rows, strict=True):
        t = prediction.index
        assert np.array_equal(masks[t], prediction.mask) and masks[t].shape == (96, 160)
        assert np.abs(soft[t] / 255 - prediction.probability).max() <= 0.5 / 255 + 1e-6
        assert row == {"frame": str(t), "time": f"{t / 6:.3f}", "predicted_iou": f"{prediction.iou:.4f}",
                       "remembered": str(int(prediction.remembered)), "area": str(prediction.mask.sum())}
    assert Image.open(output / "masks" / "00000.png").mode == "P"
    summary = json.loads((output / "summary.json").read_text())
    assert summary["frames"] == 8 and summary["size"] == [96, 160] and summary["complete"] and summary["fps"] > 0
    assert summary["mean_predicted_iou"] == round(np.mean([p.iou for p in found]), 4)
    assert summary["supports"] == [str(clip / "support" / f"{k}.jpg") for k in range(2)]
    film = cv2.VideoCapture(str(output / summary["film"]))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 8 and film.get(cv2.CAP_PROP_FPS) == 6
    assert "8 frames of 96 x 160" in said and f"mean predicted IoU {summary['mean_predicted_iou']:.3f}" in said
    assert said.count("\n") == 1 and summary["film"] in said


def test_every_start_end_and_shots_choose_and_an_earlier_result_is_replaced(call, clip, tmp_path):
    output, _ = call("--soft")
    (output / "masks" / "mine.png").write_bytes(b"")
    again, _ = call("--every", 3, "--start", "1f", "--end", "7f", "--shots", 1, "--fps", 12)
    assert [int(row["frame"]) for row in rows_of(again)] == [1, 4] and [row["time"] for row in rows_of(again)] == [
        "0.083", "0.333"]
    assert sorted(path.name for path in (again / "masks").iterdir()) == ["00001.png", "00004.png", "mine.png"]
    assert not list((again / "soft").iterdir())
    summary = json.loads((again / "summary.json").read_text())
    assert summary["settings"]["every"] == 3 and len(summary["supports"]) == 1
    assert cv2.VideoCapture(str(again / summary["film"])).get(cv2.CAP_PROP_FPS) == 4
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "frames.csv").write_text("my,own,table\n")
    with pytest.raises(ValueError, match="not written by segment.py"):
        call(output="other")
    assert (tmp_path / "other" / "frames.csv").read_text() == "my,own,table\n"


def test_a_film_is_segmented_like_its_frames(call, clip):
    video = next(clip.glob("video.*"))
    film, _ = call(video=video, output="film")
    folder, _ = call(output="folder")
    assert all(np.array_equal(a, b) for a, b in zip(*(masks_in(o / "masks").values() for o in (film, folder)),
                                                    strict=True))
    assert [row["time"] for row in rows_of(film)] == [f"{t / 8:.3f}" for t in range(8)]


def test_the_film_lasts_as_long_as_the_video(call, tmp_path):
    """A slide show, whose frames are shown for two seconds each; and only every other frame of it."""
    with Film(tmp_path / "slides", fps=0.5) as film:
        film.add(np.random.default_rng(0).integers(0, 255, (4, 96, 160, 3), np.uint8), [0, 2, 4, 6])
    for every, seconds in ((1, 8), (2, 8)):
        output, _ = call("--every", every, video=film.path)
        with av.open(str(output / "overlay.mp4")) as result:
            assert [round(f.time, 3) for f in result.decode(video=0)] == [0, 2, 4, 6][::every]
            assert result.duration / av.time_base == pytest.approx(seconds, abs=0.01)


def test_a_terminal_that_lacks_a_letter_is_no_error(call, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", terminal)
    call("--no-film", output="\u72d7")
    terminal.flush()
    assert b"\\u72d7: masks/" in terminal.buffer.getvalue()


def test_the_film_may_be_smaller_than_the_masks(call, clip, tmp_path):
    """And frames of another shape have borders in it, masks have not."""
    shutil.copytree(clip / "frames", tmp_path / "frames")
    Image.fromarray(np.full((160, 96, 3), 255, np.uint8)).save(tmp_path / "frames" / "8.png")
    output, _ = call("--max-side", 80, video=tmp_path / "frames")
    film = cv2.VideoCapture(str(output / json.loads((output / "summary.json").read_text())["film"]))
    rows = 48 + caption(80, "").shape[0]
    assert (film.get(cv2.CAP_PROP_FRAME_WIDTH), film.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (80, rows + rows % 2)
    pictures = [film.read()[1][:48] for _ in range(9)]
    assert pictures[8][:, :20].mean() < 8 and pictures[8][24, 40].max() > 150
    masks = masks_in(output / "masks")
    assert masks[0].shape == (96, 160) and masks[8].shape == (160, 96)


def test_what_was_computed_before_a_broken_frame_is_kept(call, clip, tmp_path, capsys):
    shutil.copytree(clip / "frames", tmp_path / "frames")
    (tmp_path / "frames" / "4.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    with pytest.raises(SystemExit) as exit_status, user_errors():
        call(video=tmp_path / "frames")
    assert exit_status.value.code == 2 and "4.png" in (error := capsys.readouterr().err) and "(frame 4)" in error
    output, whole = tmp_path / "out", call(output="whole")[0]
    masks = masks_in(output / "masks")
    assert list(masks) == [0, 1, 2, 3] and len(rows_of(output)) == 4
    expected = masks_in(whole / "masks")
    assert all(np.array_equal(masks[t], expected[t]) for t in range(3))      # frame 3 has been alone in its clip
    summary = json.loads((output / "summary.json").read_text())
    assert not summary["complete"] and "(frame 4)" in summary["stopped_by"]
    assert cv2.VideoCapture(str(output / summary["film"])).get(cv2.CAP_PROP_FRAME_COUNT) == 4


@pytest.mark.parametrize("endless", [False, True])
def test_ctrl_c_keeps_what_was_computed_and_is_how_a_camera_ends(call, monkeypatch, tmp_path, endless):
    honest, added = segment.ResultFolder.add, []

    def add(self, frame, prediction):
        if len(added) == 5:
            raise KeyboardInterrupt
        added.append(frame.index)
        honest(self, frame, prediction)
    monkeypatch.setattr(segment.ResultFolder, "add", add)
    monkeypatch.setattr("dataloaders.own.video.PictureFolder.endless", endless, raising=False)
    if endless:
        call()
    else:
        with pytest.raises(KeyboardInterrupt):
            call()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["frames"] == 5 == len(masks_in(tmp_path / "out" / "masks")) and summary["complete"] == endless
    assert (tmp_path / "out" / summary["film"]).is_file()


def test_nothing_is_written_before_everything_is_there(call, clip, tmp_path):
    for arguments, replaced, reason in (
            ((), {"checkpoint": tmp_path / "none.pth"}, "make demo"), ((), {"support": tmp_path / "none"}, "dog.jpg"),
            ((), {"video": tmp_path / "none.mp4"}, "no file or folder"), (("--max-side", -1), {}, "--max-side"),
            (("model.dims=3",), {}, "did you mean 'dim'"), (("--shots", 9), {}, "--shots 9")):
        with pytest.raises((ValueError, FileNotFoundError), match=reason):
            call(*arguments, **replaced)
        assert not (tmp_path / "out").exists()


def test_films_can_be_left_out(call):
    output, said = call("--no-film", "--end", "3f")
    assert sorted(path.name for path in output.glob("[!.]*")) == ["frames.csv", "masks", "summary.json"]
    assert json.loads((output / "summary.json").read_text())["film"] is None and "overlay" not in said


def test_the_demos_clip_shows_a_class_that_its_training_never_sees(clip):
    """Written once; its supports show the object, and its truth lies beside every frame."""
    base, novel = split_classes([category.id for category in CATEGORIES], fold=1)
    assert CATEGORY.id in novel and CATEGORY.id not in base
    assert not write_demo_clip(clip, None, size=(48, 80), frames=(8, 8))
    about = json.loads((clip / "clip.json").read_text())
    assert about["category"] == CATEGORY.name and about["size"] == [96, 160]
    assert all(mask.sum() > 50 for mask in read_supports(clip / "support").masks)
    truth = masks_in(clip / "truth")
    assert len(truth) == 8 and {mask.shape for mask in truth.values()} == {(96, 160)} and truth[0].any()


# -- the notebook ---------------------------------------------------------------------------------------------------

NOTEBOOK = Path("docs/segment_your_video.ipynb")


def notebook_cells():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_was_executed_whole_and_is_small():
    assert NOTEBOOK.stat().st_size < 2 ** 20
    cells = notebook_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 3


def test_the_notebooks_cells_run(checkpoint, clip, capsys):
    """As they stand, on a model and a clip that are made here."""
    names = {}
    for cell in notebook_cells():
        source = "".join(cell["source"])
        if source.startswith("import sys"):
            source = "\n".join(line for line in source.splitlines() if "output/demo" not in line)
            names |= {"CHECKPOINT": checkpoint, "SUPPORT": clip / "support", "VIDEO": next(clip.glob("video.*"))}
        exec(compile(source.replace("start=1.0, end=3.0", "start=0.2, end=0.9"), str(NOTEBOOK), "exec"), names)
    names["plt"].close("all")
    assert names["plt"].rcParams["backend"].lower() == "agg"
    said = capsys.readouterr().out
    assert "8 masks of (96, 160) bool" in said and "mean IoU: true" in said and "pixels of object: [" in said
