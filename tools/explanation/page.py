"""The page that explains an episode: the video in short, the supports, one clip in full. One HTML file, as text.

Here are the pictures and their captions, in page.html the words around them, in the order of Figures 2 and 3.
"""
from pathlib import Path, PurePosixPath

import numpy as np
from markupsafe import Markup

from tools.explanation.pictures import STRIDE, colour_bar, heat_map, iou_chart
from utils.evaluation.metrics import jaccard
from utils.pictures.images import data_uri, encode_jpeg, segmentation
from utils.report.page import render

# symbol and equation, its place among IoUNet's maps, whether it lies inside the predicted mask, what it is and tells
MAPS = (
    (Markup("S<sup>fb</sup>, Eq. 15"), 3, True, "Every position of the predicted object: its similarity to the most "
     "similar position of the predicted background. High: what is marked resembles what is left out, and the mask is "
     "doubtful."),
    (Markup("S<sup>bf</sup>, Eq. 15"), 4, False, "Every position of the predicted background: its similarity to the "
     "most similar position of the predicted object. High: perhaps a missed part of the object."),
    (Markup("S<sup>fs</sup>, Eq. 16"), 2, True, "Every position of the predicted object: its similarity to the most "
     "similar position of the supports' objects. High: the mask marks what the supports show."),
    (Markup("S<sup>bs</sup>, Eq. 16"), 1, False, "Every position of the predicted background: its similarity to the "
     "most similar position of the supports' objects. High: something like their object lies outside the mask."))


def build_page(view, supports, facts, cfg):
    """VideoView, supports: list of (image (H, W, 3) uint8, mask (H, W) bool, name), facts, config  ->  HTML

    facts: {name: value}, both text; the first one is the title.
    """
    clip, frames = view.detail, view.frames
    given = [image for image, *_ in supports]
    judged = frames[0].predicted is not None
    return render("page.html", {
        "title": next(iter(facts.values())), "facts": facts, "cfg": cfg, "clip": clip, "judged": judged,
        "without_memory": why_without_memory(clip, cfg), "thinned": any(f.thumbnail is None for f in frames),
        "bar": figure(colour_bar(), "colour scale from violet to yellow",
                      "Heat maps: 0 (violet) to 1, or to the largest weight (yellow)"),
        "chart": iou_chart(view, cfg.memory.min_iou if judged else None),
        "clips": [clip_box(number, view) for number in range(len(view.memory))],
        "supports": [figure(segmentation(image, mask), f"support {k} with its mask in red", f"support {k}: {name}")
                     for k, (image, mask, name) in enumerate(supports)],
        "prior": [figure(heat_map(frame, values, truth=truth), f"prior over frame {i}",
                         f"frame {i}: mean {values.mean():.2f}") for i, frame, values, truth in over(clip, clip.prior)],
        "initial": mask_figures(clip, clip.initial, clip.initial > 0, "initial mask"),
        "layers": [layer_rows(layer, clip, given) for layer in clip.layers],
        "final": [figure(segmentation(frame, mask, truth), f"final mask of frame {i}",
                         f"frame {i}: {scores(frames[i])}") for i, frame, mask, truth in over(clip, clip.masks)],
        "seen": [] if clip.maps is None else seen_figures(clip, frames),
        "maps": [] if clip.maps is None or clip.maps.shape[1] == 1 else map_rows(clip)}, Path(__file__).parent)


def figure(image, alt, caption):
    """(rows, columns, 3) uint8, or a JPEG, and its texts  ->  what page.html draws"""
    jpeg = image if isinstance(image, bytes) else encode_jpeg(image)
    return {"uri": data_uri(jpeg), "alt": alt, "caption": caption}


def why_without_memory(clip, cfg):
    """A sentence for a clip that reads no memory, else nothing."""
    if clip.memory:
        return ""
    if clip.maps is None:
        return "This model has no memory."
    if clip.number == 0:
        return "It reads no memory, being the first clip."
    if cfg.memory.select == "none":
        return "It reads no memory: memory.select is none."
    return ("It reads no memory: no earlier frame was taken into it "
            f"(memory.select {cfg.memory.select}, memory.min_iou {cfg.memory.min_iou:g}).")


def clip_box(number, view):
    """One clip of the overview: the frames that it read from memory, and its own."""
    def label(i):
        return f"frame {i} ({PurePosixPath(view.frames[i].name).stem})"
    return {"number": number, "memory": ", ".join(map(label, view.memory[number])) or "nothing",
            "figures": [figure(f.thumbnail, f"frame {i} with its predicted mask in red and the truth in green",
                               f"{label(i)}: {scores(f)}")
                        for i, f in enumerate(view.frames) if f.clip == number and f.thumbnail]}


def scores(frame):
    """FrameView  ->  its true and predicted IoU, with a star if it entered memory"""
    predicted = "" if frame.predicted is None else f", predicted {frame.predicted:.2f}"
    return f"J {frame.j:.2f}{predicted}{' ★' if frame.remembered else ''}"


def over(clip, values):
    """The frames of a ClipView beside what belongs to each: yields frame number, frame, value, truth"""
    return zip(range(clip.first, clip.first + len(clip.frames)), clip.frames, values, clip.truth, strict=True)


def mask_figures(clip, logits, masks, what):
    """Masks on their way, logits and masks (T, h, w): probability, outline, and J at the size of the maps"""
    found = []
    for (number, frame, frame_logits, truth), mask in zip(over(clip, logits), masks, strict=True):
        probability = 1 / (1 + np.exp(-np.clip(frame_logits, -60, 60)))
        j = jaccard(mask, truth[::STRIDE, ::STRIDE])          # the pixels that the network's maps stand for
        found.append(figure(heat_map(frame, probability, line=mask, truth=truth), f"{what} of frame {number}",
                            f"frame {number}: J {j:.2f}, {100 * mask.mean():.0f} % of the frame"))
    return found


def layer_rows(layer, clip, supports):
    """One iteration  ->  {"support", "memory", "clip", "frame" (those it has): (figures, colour scale in words),
    "clip_masks", "frame_masks": figures}"""
    labels = [f"frame {clip.first + t}" for t in range(len(clip.frames))]
    shown = {"support": (supports, [f"support {k}" for k in range(len(supports))]), "clip": (clip.frames, labels),
             "memory": (clip.memory_frames, [f"frame {i}" for i in clip.memory]), "frame": (clip.frames, labels)}
    rows = {name: (attention_figures(attention, *shown[name], f"{name} prototype", own_scale=name == "frame"),
                   scale_of(attention)) for name, attention in layer.attention.items()}
    for name, logits in (("clip", layer.clip_logits), ("frame", layer.frame_logits)):
        if logits is not None:
            rows[f"{name}_masks"] = mask_figures(clip, logits, logits >= 0, f"{name} mask")
    return rows


def attention_figures(attention, frames, labels, what, own_scale=False):
    """One heat map per frame; yellow is the largest weight of all frames, or of each frame (own_scale).

    Where no mask at all is set, MAtt reads everywhere.
    """
    found = []
    for frame, weights, readable, label in zip(frames, attention.weights, attention.readable, labels, strict=True):
        top = (weights if own_scale else attention.weights).max()
        note = f"{top:.2g}" if own_scale else f"{100 * weights.sum():.0f} %"
        extent = "" if readable.any() else ", its mask is empty at this size"
        extent = ", read everywhere" if readable.all() else extent
        found.append(figure(heat_map(frame, weights, shown=readable, line=readable, top=top),
                            f"attention of the {what} over {label}", f"{label}: {note}{extent}"))
    return found


def scale_of(attention):
    """The common colour scale of several frames, in words."""
    largest, count = attention.weights.max(), attention.readable.sum()
    return f"Violet 0, yellow {largest:.2g}, {largest * count / attention.weights.sum():.3g} times an even share."


def seen_figures(clip, frames):
    """The masks as IoUNet sees them, with what it says of them."""
    return [figure(heat_map(frame, maps[0], truth=truth), f"mask of frame {i} as IoUNet sees it",
                   f"frame {i}: predicted {frames[i].predicted:.2f}, true {frames[i].j:.2f}")
            for i, frame, maps, truth in over(clip, clip.maps)]


def map_rows(clip):
    """Figure 3: (symbol and equation, text, figures) of every map"""
    rows = []
    for name, place, inside, text in MAPS:
        figures = []
        for i, frame, maps, truth in over(clip, clip.maps):
            region = (maps[0] > 0.5) == inside
            mean = f"mean {maps[place][region].mean():.2f}" if region.any() else "the region is empty"
            figures.append(figure(heat_map(frame, maps[place], shown=region, truth=truth),
                                  f"similarity map {name.striptags()} of frame {i}", f"frame {i}: {mean}"))
        rows.append((name, text, figures))
    return rows
