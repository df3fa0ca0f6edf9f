"""Blocks of a page that explains an episode: a picture with its caption, a row of them beside their text, a section.

Functions return HTML; text that comes from files (names of videos, frames, classes) is escaped here or by the caller.
"""
from html import escape
from pathlib import PurePosixPath

import numpy as np

from tools.explanation.pictures import STRIDE, data_uri, encode_jpeg, heat_map
from utils.evaluation.metrics import jaccard

LINES = "White line: the mask, where the probability passes one half. Green line: the truth."


def figure(jpeg, alt, caption):
    """One picture; alt is plain text, caption HTML"""
    return (f'<figure><img src="{data_uri(jpeg)}" alt="{escape(alt)}" loading="lazy">'
            f"<figcaption>{caption}</figcaption></figure>")


def row(head, text, figures):
    """Text on the left, pictures on the right."""
    return (f'<div class="row"><div class="text"><h4>{head}</h4><p>{text}</p></div>'
            f'<div class="strip">{"".join(figures)}</div></div>')


def section(name, head, *content):
    return f'<section id="{name}"><h2>{head}</h2>{"".join(content)}</section>'


def left_out(text):
    """The word that stands where a model lacks a part."""
    return f'<p class="without">{text}</p>'


def frame_label(number, names):
    """frame 12 (00060): its number in the episode and its file, whose whole name is the title"""
    name = escape(names[number])
    return f'<span title="{name}">frame {number} ({PurePosixPath(name).stem})</span>'


def scores(frame):
    """FrameView  ->  its true and predicted IoU, with a star if it entered memory"""
    predicted = "" if frame.predicted is None else f", predicted {frame.predicted:.2f}"
    star = ' <b title="entered memory">&#9733;</b>' if frame.remembered else ""
    return f"J {frame.j:.2f}{predicted}{star}"


def over(clip, values):
    """The frames of a ClipView beside what belongs to each: yields frame number, frame, value, truth"""
    return zip(range(clip.first, clip.first + len(clip.frames)), clip.frames, values, clip.truth, strict=True)


def mask_figures(clip, logits, masks, what):
    """Masks on their way, logits and masks (T, h, w): probability, outline, and J at the size of the maps"""
    for (number, frame, frame_logits, truth), mask in zip(over(clip, logits), masks, strict=True):
        probability = 1 / (1 + np.exp(-np.clip(frame_logits, -60, 60)))
        j = jaccard(mask, truth[::STRIDE, ::STRIDE])          # the pixels that the network's maps stand for
        yield figure(encode_jpeg(heat_map(frame, probability, line=mask, truth=truth)), f"{what} of frame {number}",
                     f"frame {number}: J {j:.2f}, {100 * mask.mean():.0f} % of the frame")
