"""Capture: one test episode through a VIPMT, and all that it computes for one clip kept, as NumPy arrays.

In: the model, a Video, its Segmenter. Out: a VideoView, every frame in short, and a ClipView, one clip in full.
The network is not touched: forward hooks see what goes through it, and the attention weights of MAtt, Eq. 4, which it
does not hand out, are computed once more with its own functions from the very inputs that it had.
"""
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from models.vipmt.layer import attention_scores
from utils.evaluation.metrics import jaccard
from utils.pictures.images import encode_jpeg, segmentation
from utils.pictures.overlay import as_pixels

MOST_THUMBNAILS = 120       # of a longer video every second, third, ... frame is shown, so that the page stays small


@dataclass
class Attention:
    """weights (S, h, w) over S frames; readable (S, h, w) bool: where the mask let the prototype read.

    Support, clip and memory weights add up to 1 over all frames, frame prototypes' over each; a joint attention's over
    support and memory together.
    """
    weights: np.ndarray
    readable: np.ndarray


@dataclass
class LayerView:
    """One iteration: attention "support", "memory", "clip", "frame" (those it has) -> Attention; clip_logits and
    frame_logits (T, h, w), the latter None without frame prototypes."""
    attention: dict
    clip_logits: np.ndarray
    frame_logits: np.ndarray | None


@dataclass
class ClipView:
    """One clip in full. prior, initial (T, h, w): prior, margin of the initial masks; masks, truth (T, H, W) bool;
    maps (T, 5, h, w), (T, 1, h, w) without SSM, None without IoUNet; memory_masks (M, h, w) bool, None without memory.

    number: of the clip, first: of its first frame; frames (T, H, W, 3) uint8; memory: numbers of the M frames it read,
    memory_frames (M, H, W, 3) uint8.
    """
    layers: list
    prior: np.ndarray | None = None
    initial: np.ndarray | None = None
    maps: np.ndarray | None = None
    memory_masks: np.ndarray | None = None
    number: int = 0
    first: int = 0
    frames: np.ndarray | None = None
    masks: np.ndarray | None = None
    truth: np.ndarray | None = None
    memory: list = field(default_factory=list)
    memory_frames: list = field(default_factory=list)


@dataclass
class FrameView:
    """A frame in short: j: true IoU; predicted: IoU, None without IoUNet; remembered: it entered memory;
    thumbnail: JPEG, None where it is left out."""
    name: str
    clip: int
    j: float
    predicted: float | None
    remembered: bool
    thumbnail: bytes | None


@dataclass
class VideoView:
    """frames: one FrameView each; memory: per clip the numbers of the frames it read; detail: the ClipView."""
    frames: list
    memory: list
    detail: ClipView | None


# -- attention ------------------------------------------------------------------------------------------------------

def softmax_weights(attention, prototype, sources):
    """The softmax of MAtt, Eq. 4, over all sources together, as PrototypeAttention computes it.

    prototype (B, C), sources: list of (features (B, T, C, h, w), mask (B, T, h, w) bool)
    ->  one (weights, readable) per source, (B, T, h, w) each; with no mask at all set everything is readable
    """
    q = attention.query(prototype)
    scores = [attention_scores(q, features, mask) for features, mask in sources]
    weights = torch.cat(scores, dim=-1).softmax(dim=-1).split([s.shape[-1] for s in scores], dim=-1)
    empty = ~torch.cat([mask.flatten(1) for _, mask in sources], dim=1).any(dim=1)[:, None, None, None]
    return [(w.view_as(mask), mask | empty) for w, (_, mask) in zip(weights, sources, strict=True)]


def layer_attention(layer, prototype, query, mask, support, memory, out):
    """Everything that one VIPMTLayer reads, from its inputs and its LayerOutput (B = 1)  ->  {name: Attention}"""
    guides = {"support": support} if memory is None else {"support": support, "memory": memory}
    sources = [(g.features, g.attention_masks) for g in guides.values()]
    attention = layer.support_attention
    together = [sources] if layer.joint else [[source] for source in sources]
    read = [pair for group in together for pair in softmax_weights(attention, prototype, group)]     # Eqs. 2, 13
    found = dict(zip(guides, read, strict=True))
    found["clip"], = softmax_weights(layer.clip_attention, prototype, [(query, mask)])               # Eq. 8
    if layer.frame_prototype:                                                                        # Eq. 10
        start = out.clip_inter.expand(query.shape[1], -1)
        frames = query.transpose(0, 1), (out.clip_logits >= 0).transpose(0, 1)                       # (T, 1, ...)
        (weights, readable), = softmax_weights(layer.frame_attention, start, [frames])
        found["frame"] = weights.transpose(0, 1), readable.transpose(0, 1)
    return {name: Attention(*(as_array(x[0]) for x in pair)) for name, pair in found.items()}


def as_array(x):
    """Tensor  ->  array on the CPU, floats as float32"""
    x = x.detach().cpu()
    return (x.float() if x.is_floating_point() else x).numpy()


# -- watching the network -------------------------------------------------------------------------------------------

class Watch:
    """Forward hooks on a VIPMT: `with Watch(model) as watch`; after each clip watch.clip is its ClipView so far."""

    def __init__(self, model):
        self.model, self.clip, self.handles = model, None, []

    def __enter__(self):
        self.handles = [self.model.register_forward_pre_hook(self.begin),
                        self.model.register_forward_hook(self.end)]
        self.handles += [layer.register_forward_hook(self.layer) for layer in self.model.layers]
        if self.model.iou_net is not None:
            self.handles.append(self.model.iou_net.register_forward_pre_hook(self.iou_net))
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()

    def begin(self, model, inputs):
        self.clip = ClipView(layers=[])

    def layer(self, layer, inputs, out):
        """inputs: as in VIPMTLayer.forward"""
        logits = (None if x is None else as_array(x[0]) for x in (out.clip_logits, out.frame_logits))
        self.clip.layers.append(LayerView(layer_attention(layer, *inputs[:5], out), *logits))

    def end(self, model, inputs, out):
        memory, initial = (*inputs, None)[2], out.activation.initial_logits[0]
        self.clip.prior = as_array(out.activation.prior[0])
        self.clip.initial = as_array(initial[:, 1] - initial[:, 0])
        self.clip.memory_masks = None if memory is None else as_array(memory.masks[0])

    def iou_net(self, iou_net, inputs):
        self.clip.maps = as_array(inputs[1][0])


# -- the video ------------------------------------------------------------------------------------------------------

def capture(model, video, segmenter, clip_number=None, progress=iter):
    """The whole Video through the model  ->  VideoView

    clip_number: the clip to keep in full, counted from 0; None: the last one that has memory, else the last one.
    progress: wraps the clips (tqdm)
    """
    view, images, step = VideoView([], [], None), {}, -(-len(video.frames) // MOST_THUMBNAILS)
    bank = segmenter.bank
    with Watch(model) as watch:
        for number, clip in enumerate(progress(video.clips)):
            first, prediction = len(view.frames), segmenter(segmenter.prepare(clip), clip)
            frames, masks, truth = as_pixels(clip.images), as_array(prediction.masks[0]), as_array(clip.masks[0])
            view.memory.append(bank.drawn)
            has_memory = view.detail is not None and bool(view.detail.memory)
            if number == clip_number or clip_number is None and (bank.drawn or not has_memory):
                view.detail = replace(watch.clip, number=number, first=first, frames=frames, masks=masks, truth=truth,
                                      memory=bank.drawn, memory_frames=[images[i] for i in bank.drawn])
            images |= dict(enumerate(frames, start=first))
            images = {i: images[i] for i in bank.numbers}                  # what memory may still read
            view.frames += describe(video.frames[first:], number, prediction, frames, masks, truth,
                                    [(first + t) % step == 0 for t in range(len(masks))])
    return view


def describe(names, number, prediction, frames, masks, truth, shown):
    """The frames of a clip in short: shown: which get a thumbnail  ->  list of FrameView"""
    values = {key: x.tolist() for key, x in prediction.per_frame.items()}
    ious = values.get("pred_iou", [None] * len(masks))
    rows = zip(names, jaccard(masks, truth).tolist(), ious, values["remembered"], strict=False)
    return [FrameView(*row[:1], number, *row[1:], encode_jpeg(segmentation(*frame)) if show else None)
            for row, show, *frame in zip(rows, shown, frames, masks, truth, strict=True)]
