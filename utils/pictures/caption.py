"""The strip below each frame of a film: which frame it is, how good its mask is expected to be, what the colours are.

It stands below the picture, not on it, so that it covers nothing.
"""
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GROUND, TEXT = (28, 28, 30), (240, 240, 240)
DOUBT = (255, 176, 32), (20, 20, 20)     # ground and text of a frame that is not trusted
LONGEST = "frame 00000   000.00 s   predicted IoU 0.00   not trusted"
SIZES = (8, 26)                          # of the letters, in pixels; between them a 32nd of the width, if that fits


@lru_cache
def font_for(width):
    """Letters in which LONGEST fits a width in pixels; below 250 it does not"""
    largest = min(max(width // 32, SIZES[0]), SIZES[1])
    fonts = [ImageFont.load_default(size) for size in range(largest, SIZES[0] - 1, -1)]
    return next((font for font in fonts if font.getlength(LONGEST) <= width - font.size), fonts[-1])


def caption(width, text, legend=None, doubted=False):
    """text: what is said of a frame; legend: [(name, colour)], None: no line for it  ->  (rows, width, 3) uint8

    How many rows follows from the width and from whether there is a legend. doubted: the mark of a frame not trusted
    """
    font, (ground, ink) = font_for(width), DOUBT if doubted else (GROUND, TEXT)
    line = round(1.6 * font.size)
    strip = Image.new("RGB", (width, line * (1 + (legend is not None))), ground)
    draw, middle, x = ImageDraw.Draw(strip), 1.5 * line, font.size // 2
    draw.text((x, line / 2), text, ink, font, anchor="lm")
    for name, colour in legend or ():
        draw.rectangle((x, middle - font.size / 2, x + font.size, middle + font.size / 2), tuple(map(int, colour)), ink)
        draw.text((x + 1.4 * font.size, middle), name, ink, font, anchor="lm")
        x += int(2.6 * font.size + font.getlength(name))
    return np.asarray(strip)
