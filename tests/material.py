"""What many tests build: a data set that lies on no disk, tiny models and videos, and commands as a user runs them."""
import copy
import itertools
import sys
import typing
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch
from pycocotools import mask as mask_utils

from dataloaders.datasets.folds import split_classes
from dataloaders.episode import Batch, Clip, SupportSet
from models.backbone import Backbone
from models.vipmt.inference import Segmenter
from models.vipmt.iou_net import IoUNet
from models.vipmt.model import VIPMT
from utils.config import keys_of, load_config, schema
from utils.records import read_json_lines

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"              # data and golden numbers that lie beside the project, where they do
PAPER, RELEASED, DEMO = "config/vipmt/ytvis.yaml", "config/vipmt/released.yaml", "config/demo/ytvis.yaml"
MODEL = ["backbone.name=tiny", "backbone.width=8", "backbone.weights=none", "model.dim=16", "model.layers=2",
         "model.heads=2", "model.ffn_dim=24", "iou_net.weights=none", "iou_net.dim=4", "iou_net.hidden=8"]
# A training, encoder included, of two epochs of six steps on the fixture demo_root, with dropout.
TINY = [*MODEL, "data.size=[48, 80]", "data.shots=2", "data.clip_length=2", "data.clips=3", "data.samples_per_class=2",
        "data.few_videos=repeat", "data.workers=0", "train.batch_size=4", "train.lr=2.0e-3", "model.dropout=0.1",
        "train.epochs=2", "train.log_every=1", "memory.min_iou=0.0", "backbone.trained=true", "train.backward=once"]


# Files

def film_frames(path):
    """A film as OpenCV reads it, another build of FFmpeg  ->  (T, H, W, 3) uint8 RGB"""
    reader, frames = cv2.VideoCapture(str(path)), []
    while (entry := reader.read())[0]:
        frames.append(entry[1][..., ::-1])
    return np.stack(frames)


# Commands

def command(monkeypatch, script, *arguments, config=(DEMO,)):
    """A script's main() with this command line"""
    files = [word for file in config for word in ("--config", file)]
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *files, *map(str, arguments)])
    script.main()


def results_of(folder):
    """results.jsonl of a test, without what no two runs have in common: times"""
    return [{key: value for key, value in line.items() if "seconds" not in key}
            for line in read_json_lines(folder / "results.jsonl")]


def result_line(video):
    """A short line of results.jsonl"""
    return {"run": 0, "class_id": 1, "class": "cat", "video": video, "j": [0.5], "f": [0.5], "vc": [],
            "vc_variant": "vipmt", "vc_window": 7}


def tree(root):
    """{name below a folder: bytes} of all its files"""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def same_weights(a, b):
    """Two state dicts: the same names, the same bits"""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Parsed(HTMLParser):
    """Images, links, ids and tags of a page; tags that do not close are an error."""

    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.ids, self.tags, self.open = [], [], [], set(), []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.images += [attributes] if tag == "img" else []
        self.links += [attributes["href"]] if "href" in attributes else []
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


# Models and videos

def model_of(cache_frames=0, with_memory=True, high_level="c5", **settings):
    """A VIPMT of 16 channels in eval mode, always the same weights"""
    torch.manual_seed(1)
    backbone = Backbone(name="tiny", width=8, cache_frames=cache_frames, high_level=high_level)
    maps = 5 if settings.get("use_maps", True) else 1
    iou_net = IoUNet(channels=backbone.channels, maps=maps, dim=4, hidden=8) if with_memory else None
    return VIPMT(backbone, iou_net, dim=16, num_layers=2, heads=2, ffn_dim=24, **settings).eval()


def episode_of(frames=11, shots=2, size=(36, 44)):
    """A video of noise, its sides no multiples of 8, with supports; always the same"""
    generator = torch.Generator().manual_seed(5)

    def images(n):
        return torch.randn(n, 3, *size, generator=generator)

    def masks(n):
        return torch.rand(n, *size, generator=generator) > 0.6
    return SimpleNamespace(support_images=images(shots), support_masks=masks(shots), query_images=images(frames),
                           query_masks=masks(frames))


def segmenter_of(model, episode, length=3, min_iou=0.0, seed=0, keep=1000, select="predicted", amp=None):
    memory = SimpleNamespace(length=length, select=select, min_iou=min_iou, keep=keep)
    return Segmenter(model, SupportSet(episode.support_images, episode.support_masks), SimpleNamespace(memory=memory),
                     rng=np.random.default_rng(seed), amp=amp)


def segmented(segmenter, images, masks=None, clip_length=4):
    """A whole video through a Segmenter, clip by clip as test.py hands it over

    masks (T, H, W): the truth  ->  margins, masks (T, H, W), ious, remembered (T,), None where the method has none
    """
    truth = [None] * len(images) if masks is None else [part[None] for part in masks.split(clip_length)]
    clips = [Clip(part, its_truth) for part, its_truth in zip(images.split(clip_length), truth, strict=False)]
    found = [segmenter(segmenter.prepare(clip), clip) for clip in clips]
    values = {name: torch.cat([one.per_frame[name] for one in found]) for name in found[0].per_frame}
    assert all(one.margins.shape[0] == 1 and torch.equal(one.masks, one.margins > 0) for one in found)
    margins = torch.cat([one.margins[0] for one in found])
    return SimpleNamespace(margins=margins, masks=margins > 0, ious=values.get("pred_iou"),
                           remembered=values.get("remembered"))


def batch_of(images, masks, shots, clip_length):
    """A training Batch: images (B, K + clips * T, 3, H, W), masks (B, K + clips * T, H, W), the K supports first

    Frame t shows position t of its video.
    """
    count, frames = len(images), images.shape[1] - shots
    return Batch(images[:, :shots], masks[:, :shots], images[:, shots:], masks[:, shots:],
                 query_frames=[list(range(frames))] * count, clip_length=clip_length, class_ids=[4, 7, 8, 9][:count],
                 ids=list("abcd")[:count],
                 keys=[("train", 0, n) for n in range(count)])


# Data

def box(top, left, bottom, right, size):
    """(H, W) bool, True within"""
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def rle_of(mask):
    """COCO's compressed run lengths, as pycocotools writes them"""
    rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def run_lengths(mask):
    """The same as numbers, pixel by pixel down the columns"""
    runs = [[value, len(list(run))] for value, run in itertools.groupby(mask.T.reshape(-1).tolist())]
    return {"size": list(mask.shape), "counts": [0] * bool(mask[0, 0]) + [length for _, length in runs]}


GONE = object()


def changed(content, path, value):
    """A copy of nested dicts and lists whose entry at a path such as "videos.0.id" is another, or GONE; a function
    makes it from what was there."""
    content = copy.deepcopy(content)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    inner = content
    for part in parents:
        inner = inner[part]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value(inner[last]) if callable(value) else value
    return content


class FakeIndex:
    """Class c has `counts[c]` videos of its own; (c, n) is its n-th. Frame t is grey with value t, a box is its object.

    length: frames that show the class; two more come before them. Frames in `tiny` show an object that vanishes at
    input size.
    """
    path = "fake.json"

    def __init__(self, counts, length=20, size=(48, 64), tiny=()):
        self.counts, self.shown, self._size, self.tiny, self.read = counts, length, size, set(tiny), []
        self.class_ids = sorted(counts)

    def class_name(self, class_id):
        return f"class{class_id}"

    def videos(self, class_id):
        return [100 * class_id + n for n in range(self.counts[class_id])]

    def support_videos(self, class_id):
        return self.videos(class_id)

    def side(self, fold, side):
        base, novel = split_classes(self.class_ids, fold)
        return self, base if side == "train" else novel

    def scored_frames(self, video, class_id):
        return self.frames(video, class_id)

    def frames(self, video, class_id):
        return np.arange(2, 2 + self.shown)                       # the class is absent from frames 0 and 1

    def length(self, video):
        return 2 + self.shown

    def file_name(self, video, frame):
        return f"v{video}/{frame:05d}.jpg"

    def video_name(self, video):
        return f"v{video}"

    def annotation_files(self):
        return []

    def sampled_files(self):
        return []

    def size(self, video):
        return self._size

    def read_image(self, video, frame):
        self.read.append((video, frame))
        return np.full((*self._size, 3), frame % 256, np.uint8)

    def read_mask(self, video, frame, class_id):
        mask = np.zeros(self._size, bool)
        if (video, frame) in self.tiny:
            mask[1, 1] = True                                     # between the points that nearest resizing reads
        elif frame >= 2:
            mask[12:36, 16:48] = True
        return mask


def small_config(**data):
    """The defaults with 24 x 32 images and no workers; data: changes of its section."""
    cfg = load_config()
    cfg.data.update(size=[24, 32], workers=0, **data)
    return cfg


def with_few_videos(cfg, rule="repeat", **data):
    """A copy that lets supports share a video; data: further changes of its section."""
    cfg = copy.deepcopy(cfg)
    cfg.data.update(few_videos=rule, **data)
    return cfg


def video_of(file_name):
    """The folder of a frame."""
    return file_name.split("/")[0]


def numbers_of(images):
    """The frame numbers that FakeIndex paints into its images, (T, 3, H, W)  ->  list of int"""
    return (images[:, 0, images.shape[2] // 2, images.shape[3] // 2] * 255).round().int().tolist()


def choices(key, method="vipmt"):
    """The values that a key of the config may have"""
    return typing.get_args(typing.get_args(keys_of(schema(method))[key][0])[0])
