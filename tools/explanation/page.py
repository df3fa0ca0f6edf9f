"""The page that explains an episode: the video in short, the supports, one clip in full. One HTML file, as text.

Nothing is loaded and nothing runs: pictures are inlined, and the page's own policy forbids scripts and the network.
"""
from html import escape
from pathlib import Path

from tools.explanation.blocks import figure, frame_label, row, scores, section
from tools.explanation.clip import activation_section, final_section, layer_section, maps_section
from tools.explanation.pictures import chart, colour_bar, encode_jpeg, segmentation

STYLE = Path(__file__).with_name("page.css")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
INTRODUCTION = (
    "What VIPMT computes for one test episode, in the order of Figures 2 and 3 of the paper (arXiv 2309.11160v1); "
    "symbols and equation numbers are the paper's. Frames, clips and supports are counted from 0, iterations from 1. "
    "Every position of the network's maps is drawn as the 8 x 8 pixels of the input that it stands for.")


def build_page(view, supports, facts, cfg):
    """VideoView, supports: list of (image (H, W, 3) uint8, mask (H, W) bool, name), facts, config  ->  HTML

    facts: {name: value}, both text; the first one is the title.
    """
    title, clip = next(iter(facts.values())), view.detail
    table = "".join(f"<tr><th>{escape(key)}</th><td>{escape(str(value))}</td></tr>" for key, value in facts.items())
    bar = figure(encode_jpeg(colour_bar()), "colour scale from violet to yellow",
                 "Heat maps: 0 (violet) to 1, or to the largest weight (yellow)")
    images, detail = [image for image, *_ in supports], [chosen(view, cfg), activation_section(clip, cfg)]
    detail += [layer_section(n + 1, clip, cfg, images) for n in range(len(clip.layers))]
    detail += [final_section(clip, view.frames), maps_section(clip, view.frames, cfg)]
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<style>{STYLE.read_text(encoding="utf-8")}</style></head><body><h1>{escape(title)}</h1>'
            f'<p>{INTRODUCTION}</p><div class="top"><table>{table}</table>{bar}</div>{contents(len(clip.layers))}<main>'
            f"{video_section(view, cfg)}{support_section(supports)}{''.join(detail)}</main></body></html>\n")


def contents(layers):
    names = {"video": "video", "support": "support", "activation": "prior, initial masks"}
    names |= {f"layer{n}": f"iteration {n}" for n in range(1, layers + 1)}
    names |= {"final": "final masks", "maps": "similarity maps"}
    return f'<nav>{" ".join(f"""<a href="#{name}">{text}</a>""" for name, text in names.items())}</nav>'


def chosen(view, cfg):
    """Which clip is shown in full, and why it has no memory if it has none."""
    clip = view.detail
    return (f'<p class="chosen">In full from here on: clip {clip.number}, frames {clip.first} to '
            f"{clip.first + len(clip.frames) - 1}.{why_without_memory(clip, cfg)}</p>")


def why_without_memory(clip, cfg):
    """A sentence for a clip that reads no memory, else nothing."""
    select = cfg.memory.select
    if clip.memory:
        return ""
    if clip.maps is None:
        return " This model has no memory."
    if clip.number == 0:
        return " It reads no memory, being the first clip."
    if select == "none":
        return " It reads no memory: memory.select is none."
    return (f" It reads no memory: no earlier frame was taken into it (memory.select {escape(select)}, memory.min_iou "
            f"{cfg.memory.min_iou:g}).")


def support_section(supports):
    figures = [figure(encode_jpeg(segmentation(image, mask)), f"support {k} with its mask in red",
                      f"support {k}: {escape(name)}") for k, (image, mask, name) in enumerate(supports)]
    return section("support", "Support (Figure 2, top left)", row(
        "I<sup>s</sup>, O<sup>s</sup>",
        "The K annotated frames: all that the network is told of the category. Red: the given mask.", figures))


# -- the whole video ------------------------------------------------------------------------------------------------

def video_section(view, cfg):
    """Predicted against true IoU, every frame, and what memory did."""
    select = cfg.memory.select
    judged = any(f.predicted is not None for f in view.frames)
    key = "<b class='true'>Green</b>: true IoU (J) of the predicted mask. "
    if judged:
        key += (f"<b class='predicted'>Red</b>: the IoU that IoUNet predicts. <b class='threshold'>Dashed</b>: "
                f"memory.min_iou = {cfg.memory.min_iou:g}. Full dots: the frame entered memory (memory.select: "
                f"{escape(select)}). ")
    else:
        key += "This model has no IoUNet: nothing is predicted and nothing remembered. "
    text = ("Red: predicted mask; green line: the truth; a star: entered memory. J is that of the network's input, "
            "padding included.")
    if any(f.thumbnail is None for f in view.frames):
        text += " Only some frames are shown, evenly chosen, so that this page stays small."
    clips = "".join(clip_box(number, view) for number in range(len(view.memory)))
    return section("video", "The video, clip by clip (Section 4.3)",
                   f"<p>{key}Vertical lines: clips; shaded: the clip that is shown in full.</p>",
                   chart(view, cfg.memory.min_iou if judged else None), f"<p>{text}</p>",
                   f'<div class="film">{clips}</div>')


def clip_box(number, view):
    """One clip of the overview: the frames that it read from memory, and its own."""
    names, read = [f.name for f in view.frames], view.memory[number]
    memory = ", ".join(frame_label(i, names) for i in read) if read else "nothing"
    figures = [figure(f.thumbnail, f"frame {i} with its predicted mask in red and the truth in green",
                      f"{frame_label(i, names)}: {scores(f)}")
               for i, f in enumerate(view.frames) if f.clip == number and f.thumbnail]
    return (f'<div class="clip{" detail" if view.detail.number == number else ""}">'
            f'<p>clip {number}, read from memory: {memory}</p><div class="strip">{"".join(figures)}</div></div>')
