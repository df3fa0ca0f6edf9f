"""Charts of a page as SVG within the HTML: few kinds, drawn here in milliseconds.

A plotting library takes longer to import and to draw than a small test may take for its whole page. Functions take
plain numbers. Text takes the colour of the page around it and the lines have colours of middle brightness, so that a
chart is read on a light and on a dark page.
"""
import io
import math

import cv2
import numpy as np
from markupsafe import Markup
from PIL import Image

from utils.pictures.images import data_uri

COLOURS = ("#2a78b8", "#c4631f", "#2f9150", "#9a62bf")
MOST_POINTS = 300        # of a curve: longer ones are shown as means of neighbours
MOST_SPOTS = 2500        # of a cloud
SMALL, WIDE, LABELS, LEGEND = (360, 210), (900, 260), 220, 26        # LABELS, LEGEND: margins that hold them
RULE = 'stroke="currentColor" stroke-opacity=".2" stroke-width=".8"'
BORDER = 'stroke="currentColor" stroke-opacity=".6" stroke-width=".8"'
VIRIDIS = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]   # (256, 3) RGB


class Axes:
    """A chart that grows: marks in the units of the data, each drawn over those before; svg() ends it.

    x, y: what the axes reach from and to; size, left, top: pixels of the whole and of two of its margins. `style` is
    SVG attributes.
    """

    def __init__(self, x, y, size=SMALL, left=48, top=8):
        self.x, self.y, self.size, self.marks = widened(*x), widened(*y), size, []
        self.left, self.right, self.top, self.bottom = left, size[0] - 10, top, size[1] - 36

    def place(self, x, y):
        """Data  ->  pixels"""
        (x0, x1), (y0, y1) = self.x, self.y
        return (self.left + (np.asarray(x, float) - x0) / (x1 - x0) * (self.right - self.left),
                self.bottom - (np.asarray(y, float) - y0) / (y1 - y0) * (self.bottom - self.top))

    def add(self, mark, *values):
        self.marks.append(Markup(mark).format(*values))

    def text(self, x, y, words, anchor="middle"):
        """Words at a place in pixels"""
        self.add('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>', x, y, anchor, words)

    def line(self, x, y, style, close=False):
        points = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(*self.place(x, y), strict=True))
        self.add('<path d="M{}{}" {}/>', points, "z" * close, Markup(style))

    def dots(self, x, y, colour, size=4, opacity=1):
        points = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(*self.place(x, y), strict=True))
        self.add('<path d="{}" stroke="{}" stroke-width="{}" stroke-opacity="{}" stroke-linecap="round"/>',
                 points, colour, size, opacity)

    def box(self, x, y, style):
        """x, y: (from, to)"""
        (x0, x1), (y0, y1) = x, y
        self.line([x0, x1, x1, x0], [y0, y0, y1, y1], style, close=True)

    def grid(self, x_label="", y_label="", rows=True, whole=(False, False)):
        """Lines and numbers of the x axis; rows: also of the y axis; whole: whether x and y count, in whole numbers"""
        self.line([self.x[0], *self.x], [self.y[1], self.y[0], self.y[0]], RULE)
        for value in ticks(*self.x, whole[0]):
            self.line([value] * 2, self.y, RULE)
            self.text(self.place(value, 0)[0], self.bottom + 14, f"{value:g}")
        for value in ticks(*self.y, whole[1]) if rows else ():
            self.line(self.x, [value] * 2, RULE)
            self.text(self.left - 5, self.place(0, value)[1] + 4, f"{value:g}", "end")
        self.text((self.left + self.right) / 2, self.size[1] - 8, x_label)
        self.text(self.left, self.top - 9, y_label, "start")
        return self

    def legend(self, names):
        """[(name, style)] of lines, in the margin above"""
        x = self.left
        for name, style in names:
            self.add('<path d="M{} {}h14" {}/>', x, self.top - 11, Markup(style))
            self.text(x + 18, self.top - 8, name, "start")
            x += 36 + 6.2 * len(name)

    def svg(self, what):
        """what: is shown, in words"""
        head = Markup('<svg viewBox="0 0 {} {}" style="max-width:{}px" role="img" aria-label="{}">')
        return head.format(*self.size, round(1.5 * self.size[0]), what) + Markup().join(self.marks) + Markup("</svg>")


def widened(low, high):
    """Two ends, which may be one  ->  two that differ"""
    return (low, high) if low < high else (low - (abs(low) / 2 or 0.5), low + (abs(low) / 2 or 0.5))


def ticks(low, high, whole=False, most=6):
    """Two ends  ->  round numbers between them, `most` steps or fewer; whole: no fractions"""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    power = max(power, 1.0) if whole else power
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if high - low <= step * most)
    return [n * step for n in range(math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6) + 1)]


def curves(series, what, low=None, high=None, x_label="step"):
    """{name: list of (x, y)}  ->  one line each; low and high: ends of the y axis, None as the data are"""
    thinned = {str(name): np.array(thin(points), float).T for name, points in series.items()}
    x, y = np.concatenate([*thinned.values()], axis=1)
    edge = 0.05 * np.ptp(y)
    axes = Axes((x.min(), x.max()), (y.min() - edge if low is None else low, y.max() + edge if high is None else high),
                top=LEGEND if len(series) > 1 else 8)
    axes.grid(x_label, whole=[bool((values == values.round()).all()) for values in (x, y)])
    styles = [f'stroke="{COLOURS[i % len(COLOURS)]}"' for i in range(len(series))]
    for number, (points, style) in enumerate(zip(thinned.values(), styles, strict=True)):
        axes.line(*points, style)
        if points.shape[1] < 30:
            axes.dots(*points, COLOURS[number % len(COLOURS)])
    if len(series) > 1:
        axes.legend(zip(thinned, styles, strict=True))
    return axes.svg(what)


def thin(points, most=MOST_POINTS):
    """Points (x, y) in order  ->  at most `most` of them: means of equally many neighbours, the last group shorter"""
    size = -(-len(points) // most)
    return [tuple(np.mean(points[i:i + size], axis=0).tolist()) for i in range(0, len(points), size)]


def histogram(series, what):
    """{name: values}  ->  how often each occurs, as a share of all"""
    joint = np.concatenate([*series.values()])
    edges = np.histogram_bin_edges(joint, 20, None if np.ptp(joint) else (joint[0] - 0.5, joint[0] + 0.5))
    shares = {name: np.histogram(values, edges)[0] / len(values) for name, values in series.items()}
    highest = 1.05 * max(map(max, shares.values()))
    axes = Axes((edges[0], edges[-1]), (0, highest), top=LEGEND if len(series) > 1 else 8).grid()
    styles = [f'stroke="{colour}"' for colour, _ in zip(COLOURS, series, strict=False)]
    for share, style in zip(shares.values(), styles, strict=True):
        fill = f' fill="{COLOURS[0]}" fill-opacity=".8"' if len(series) == 1 else ""
        axes.line(edges.repeat(2), [0, *share.repeat(2), 0], style + fill)
    if len(series) > 1:
        axes.legend(zip(series, styles, strict=True))
    return axes.svg(what)


def cloud(x, y, labels, what):
    """Two values of every frame, in 0 to 1  ->  one point each, of many frames evenly chosen ones"""
    axes = Axes((-0.02, 1.02), (-0.02, 1.02), (320, 320), top=LEGEND).grid(*labels)
    some = np.unique(np.linspace(0, len(x) - 1, min(MOST_SPOTS, len(x))).round().astype(int))
    axes.line([0, 1], [0, 1], BORDER)
    axes.dots(x[some], y[some], COLOURS[0], size=2.5, opacity=0.8)
    return axes.svg(what)


def strips(rows, what, low=None, high=None):
    """[(label, values)]  ->  a strip per video, frames from left to right, violet at `low` (the least) to yellow"""
    table = np.full((len(rows), max(len(values) for _, values in rows)), np.nan)
    for line, (_, values) in zip(table, rows, strict=True):
        line[:len(values)] = values
    there = ~np.isnan(table)
    low, high = widened(np.nanmin(table) if low is None else low, np.nanmax(table) if high is None else high)
    pixels = np.dstack([colours((np.where(there, table, low) - low) / (high - low)), 255 * there.astype(np.uint8)])
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    axes = Axes((-0.5, table.shape[1] - 0.5), (-len(rows), 0), (WIDE[0], 44 + 12 * len(rows)), LABELS)
    axes.grid("frame", rows=False, whole=(True, False))
    for number, (label, _) in enumerate(rows):
        axes.text(axes.left - 5, axes.place(0, -number - 0.5)[1] + 3, label[:36], "end")
    axes.add('<image x="{}" y="{}" width="{}" height="{}" preserveAspectRatio="none" href="{}"/>', axes.left, axes.top,
             axes.right - axes.left, axes.bottom - axes.top, data_uri(file.getvalue(), "image/png"))
    return axes.svg(what)


def colours(values):
    """(...) in [0, 1]  ->  (..., 3) uint8 RGB, violet for 0 to yellow for 1"""
    return VIRIDIS[(np.clip(values, 0, 1) * 255).round().astype(np.uint8)]
