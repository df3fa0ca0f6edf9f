"""One clip in full: PA, every iteration and the final masks (Figure 2), the similarity maps (Figure 3), as HTML.

Functions take a ClipView of tools/explanation/capture.py and the config, and return a section of the page.
"""
from tools.explanation.blocks import LINES, figure, left_out, mask_figures, over, row, scores, section
from tools.explanation.pictures import encode_jpeg, heat_map, segmentation

MASKED = "Grey: masked, weight 0. White line: the border of what may be read."
SHARES = "Below each frame: its share of all attention."


def activation_section(clip, cfg):
    """PA: prior and initial masks."""
    sources = "support and memory frames" if cfg.model.memory_in_prior else "support frames"
    released = "; frame t then averages frames 0 to t, as released" if cfg.model.prior == "cumulative" else ""
    prior = [figure(encode_jpeg(heat_map(frame, values, truth=truth)), f"prior over frame {i}",
                    f"frame {i}: mean {values.mean():.2f}") for i, frame, values, truth in over(clip, clip.prior)]
    return section(
        "activation", "PA: prior and initial masks (Figure 2, PA; Section 3.2)",
        row("prior", "How much each position resembles the most similar position of a support's object, in the highest "
            f"backbone level: stretched to 0 to 1 over the frame, mean over the {sources}{released}. Violet 0, yellow "
            "1; green line: the truth.", prior),
        row("O<sub>0</sub>, initial masks", "What PA makes of prior, mean support prototype and features before any "
            f"iteration: probability of the object, violet 0, yellow 1. {LINES} The first iteration reads the clip "
            "inside this mask.", mask_figures(clip, clip.initial, clip.initial > 0, "initial mask")))


# -- one iteration --------------------------------------------------------------------------------------------------

def layer_section(number, clip, cfg, support_images):
    """Iteration `number` (from 1) of Figure 2, from top to bottom."""
    layer, labels = clip.layers[number - 1], [f"frame {clip.first + t}" for t in range(len(clip.frames))]
    before = "the learned G<sub>0</sub>" if number == 1 else f"G<sub>{number - 1}</sub>"
    inside = "initial masks" if number == 1 else f"masks of iteration {number - 1}"
    clip_proto = row(
        f"G<sub>{number}</sub><sup>c</sup>, clip prototype, Eq. 8",
        f"Where {before} reads F<sup>c</sup><sub>{number - 1}</sub>: all frames of the clip in one softmax, inside the "
        f"{inside}. {scale_of(layer.attention['clip'])} {MASKED} {SHARES}",
        attention_figures(layer.attention["clip"], clip.frames, labels, "clip prototype"))
    clip_masks = mask_row(
        clip, layer.clip_logits, f"O<sub>{number}</sub><sup>c</sup>, clip masks, Eqs. 5, 6", "clip mask",
        f"MG: the clip-level intermediate prototype G<sup>ci</sup> (Eqs. 9, 14), made of those above and {before}, as "
        "a filter over every position: probability of the object, violet 0, yellow 1.")
    return section(
        f"layer{number}", f"Iteration {number} of {len(clip.layers)} (Figure 2)",
        support_row(layer, number, before, support_images, cfg), memory_row(layer, number, before, clip, cfg),
        clip_proto, clip_masks, *frame_rows(layer, number, clip, labels), handed_on(layer, number, cfg))


def support_row(layer, number, before, images, cfg):
    joint = ""
    if cfg.model.memory_attention == "joint" and "memory" in layer.attention:
        joint = " As released, support and memory share one softmax: their shares together are 100 %."
    return row(
        f"G<sub>{number}</sub><sup>s</sup>, support prototype, Eq. 2",
        f"Where {before} reads the support features F<sup>s</sup>: the weights of MAtt, Eq. 4, inside the given "
        f"masks.{joint} {scale_of(layer.attention['support'])} {MASKED} {SHARES}",
        attention_figures(layer.attention["support"], images, [f"support {k}" for k in range(len(images))],
                          "support prototype"))


def memory_row(layer, number, before, clip, cfg):
    """The memory prototype, or a word that there is none."""
    if "memory" not in layer.attention:
        return left_out(f"No memory prototype G<sub>{number}</sub><sup>m</sup> (Eq. 13): this clip reads no memory.")
    masks = "true" if cfg.memory.select == "ground_truth" else "predicted"
    return row(
        f"G<sub>{number}</sub><sup>m</sup>, memory prototype, Eq. 13",
        f"Where {before} reads earlier frames F<sup>m</sup>, inside their {masks} masks; MAtt is the support's "
        f"(Section 5.1). {scale_of(layer.attention['memory'])} {MASKED} {SHARES}",
        attention_figures(layer.attention["memory"], clip.memory_frames, [f"frame {i}" for i in clip.memory],
                          "memory prototype"))


def frame_rows(layer, number, clip, labels):
    """The frame prototypes and their masks, or a word that there are none."""
    if "frame" not in layer.attention:
        return [left_out(f"No frame prototypes G<sub>{number}</sub><sup>f</sup> (Eqs. 10, 12): model.frame_prototype "
                         "is false, and the clip prototype updates every frame.")]
    attention = row(
        f"G<sub>{number}</sub><sup>f</sup>, frame prototypes, Eq. 10",
        "Where G<sup>ci</sup> reads each frame on its own, inside that frame's clip mask. Each frame has its own "
        f"softmax and its own scale: violet 0, yellow the largest weight, which stands below it. {MASKED}",
        attention_figures(layer.attention["frame"], clip.frames, labels, "frame prototype", own_scale=True))
    masks = mask_row(clip, layer.frame_logits, f"O<sub>{number}</sub><sup>f</sup>, frame masks, Eq. 12", "frame mask",
                     "MG with each frame's own prototype: probability of the object, violet 0, yellow 1.")
    return [attention, masks]


def attention_figures(attention, frames, labels, what, own_scale=False):
    """One heat map per frame; yellow is the largest weight of all frames, or of each frame (own_scale).

    Where no mask at all is set, MAtt reads everywhere.
    """
    for frame, weights, readable, label in zip(frames, attention.weights, attention.readable, labels, strict=True):
        top = (weights if own_scale else attention.weights).max()
        picture = heat_map(frame, weights, shown=readable, line=readable, top=top)
        note = f"{top:.2g}" if own_scale else f"{100 * weights.sum():.0f} %"
        extent = "" if readable.any() else ", its mask is empty at this size"
        if readable.all():
            extent = ", read everywhere"
        yield figure(encode_jpeg(picture), f"attention of the {what} over {label}", f"{label}: {note}{extent}")


def scale_of(attention):
    """The common colour scale of several frames, in words."""
    largest, count = attention.weights.max(), attention.readable.sum()
    return f"Violet 0, yellow {largest:.2g}, {largest * count / attention.weights.sum():.3g} times an even share."


def mask_row(clip, logits, head, what, text):
    size = " x ".join(map(str, logits.shape[1:]))
    return row(head, f"{text} {LINES} J at the size of the maps, {size}.",
               mask_figures(clip, logits, logits >= 0, what))


def handed_on(layer, number, cfg):
    what = "the mean of the frame prototypes (Eq. 11)"
    if "frame" not in layer.attention or cfg.model.communication == "one_way":
        what = "G<sup>ci</sup>"
    return (f'<p class="handed">Handed on: {what} as G<sub>{number}</sub>, the last masks, and the features '
            f"F<sup>c</sup><sub>{number}</sub> that QA updates (Eqs. 7, 12).</p>")


# -- what comes out -------------------------------------------------------------------------------------------------

def final_section(clip, frames):
    """frames: the FrameView of every frame of the video"""
    figures = [figure(encode_jpeg(segmentation(frame, mask, truth)), f"final mask of frame {i}",
                      f"frame {i}: {scores(frames[i])}") for i, frame, mask, truth in over(clip, clip.masks)]
    return section("final", "Final masks (Section 4.4)", row(
        "final masks", "The last features through two convolutions, upsampled to the input. Red: predicted; green "
        "line: the truth. A star: entered memory.", figures))


# name, its place among IoUNet's maps, whether it lies inside the predicted mask, what it is, what it tells
MAPS = (
    ("fb, Eq. 15", 3, True, "Every position of the predicted object: its similarity to the most similar position of "
     "the predicted background.", "High: what is marked resembles what is left out, and the mask is doubtful."),
    ("bf, Eq. 15", 4, False, "Every position of the predicted background: its similarity to the most similar position "
     "of the predicted object.", "High: perhaps a missed part of the object."),
    ("fs, Eq. 16", 2, True, "Every position of the predicted object: its similarity to the most similar position of "
     "the supports' objects.", "High: the mask marks what the supports show."),
    ("bs, Eq. 16", 1, False, "Every position of the predicted background: its similarity to the most similar position "
     "of the supports' objects.", "High: something like the supports' object lies outside the mask."))


def maps_section(clip, frames, cfg):
    """What IoUNet sees of a mask, Figure 3; frames as in final_section"""
    head = "Structural similarity maps (Figure 3; Eqs. 15, 16)"
    if clip.maps is None:
        return section("maps", head, left_out("This model has no IoUNet, since it has no memory."))
    rows = [row(
        "O, the mask", "The predicted mask at the size of the maps, which divides object and background; IoUNet sees "
        "it beside the four maps and the backbone features. Below: the IoU that it predicts, and the true one.",
        [figure(encode_jpeg(heat_map(frame, maps[0], truth=truth)), f"mask of frame {i} as IoUNet sees it",
                f"frame {i}: predicted {frames[i].predicted:.2f}, true {frames[i].j:.2f}")
         for i, frame, maps, truth in over(clip, clip.maps)])]
    if clip.maps.shape[1] == 1:
        return section("maps", head, *rows, left_out("Without SSM: this IoUNet sees the mask alone (Tables 6 and 7)."))
    how = "dot products" if cfg.iou_net.similarity == "dot" else "cosines on pooled channels, as released"
    scale = f"Highest backbone level, {how}, stretched to 0 to 1 over the frame. Violet 0, yellow 1; grey: outside."
    for name, place, inside, text, tells in MAPS:
        symbol, equation = name.split(", ")
        rows.append(row(
            f"S<sup>{symbol}</sup>, {equation}", f"{text} {tells} {scale}",
            [map_figure(i, frame, maps[place], (maps[0] > 0.5) == inside, truth, symbol)
             for i, frame, maps, truth in over(clip, clip.maps)]))
    return section("maps", head, *rows)


def map_figure(number, frame, values, region, truth, name):
    mean = f"mean {values[region].mean():.2f}" if region.any() else "the region is empty"
    return figure(encode_jpeg(heat_map(frame, values, shown=region, truth=truth)),
                  f"similarity map {name} of frame {number}", f"frame {number}: {mean}")
