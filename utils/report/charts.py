"""Charts of a page, by matplotlib, as SVG within the HTML: no display is needed.

Functions take plain numbers. Text takes the colour of the page around it and the lines have colours of middle
brightness, so that a chart is read on a light and on a dark page.
"""
import io
import re
import warnings

import numpy as np
from markupsafe import Markup

COLOURS = ("#2a78b8", "#c4631f", "#2f9150", "#9a62bf")
INK = "#0a0b0c"          # stands for the colour of the page's text, whatever it is
MOST_POINTS = 300        # of a curve: longer ones are shown as means of neighbours
MOST_SPOTS = 2500        # of a cloud
SMALL, WIDE, LABELS = (360, 200), (900, 260), 190
STYLE = {"svg.fonttype": "none", "text.parse_math": False, "font.size": 9, "axes.grid": True, "grid.color": INK,
         "grid.alpha": 0.2, "grid.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False,
         "legend.frameon": False, "lines.markersize": 4, "lines.linewidth": 1.6, "axes.formatter.useoffset": False,
         **{f"{key}color": INK for key in ("text.", "axes.edge", "axes.label", "xtick.", "ytick.")}}


def draw(paint, what, size=SMALL, left=48, top=8):
    """paint(axes), what is shown, size and margins in pixels  ->  SVG"""
    from cycler import cycler  # here, since they take a second to import
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    file = io.StringIO()
    with rc_context(STYLE | {"axes.prop_cycle": cycler(color=COLOURS)}), warnings.catch_warnings():
        warnings.simplefilter("ignore")                             # of letters that matplotlib's own font lacks
        figure = Figure(figsize=(size[0] / 72, size[1] / 72))
        figure.subplots_adjust(left / size[0], 36 / size[1], 1 - 10 / size[0], 1 - top / size[1])
        paint(figure.subplots())
        figure.savefig(file, format="svg", transparent=True,
                       metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue().partition("<svg")[2].partition(">")[2]
    for pattern, better in ((r"<style.*?</style>", ""), (r' id="(?!C\d)[A-Za-z][\w.]*_\d+"', ""), (INK, "currentColor"),
                            (r"'DejaVu Sans'[^;\"]*", "sans-serif")):
        text = re.sub(pattern, better, text, flags=re.S)
    head = Markup('<svg viewBox="0 0 {} {}" style="max-width:{}px" role="img" aria-label="{}">')
    return head.format(*size, round(1.2 * size[0]), what) + Markup(text)


def curves(series, what, low=None, high=None, x_label="step"):
    """{name: list of (x, y)}  ->  one line each; low and high: ends of the y axis, None as the data are"""
    def paint(axes):
        for name, points in series.items():
            axes.plot(*zip(*thin(points), strict=True), label=str(name), marker="o" if len(points) < 30 else None)
        axes.set_xlabel(x_label)
        axes.set_ylim(low, high)
        if len(series) > 1:
            axes.legend()
    return draw(paint, what)


def thin(points, most=MOST_POINTS):
    """Points (x, y) in order  ->  at most `most` of them: means of equally many neighbours, the last group shorter"""
    size = -(-len(points) // most)
    return [tuple(np.mean(points[i:i + size], axis=0).tolist()) for i in range(0, len(points), size)]


def bars(rows, names, what):
    """[(label, [(value, spread or None) of every name])], the first on top  ->  horizontal bars, in per cent"""
    def paint(axes):
        thick = 0.8 / len(names)
        for number, name in enumerate(names):
            places = np.arange(len(rows)) + (number - (len(names) - 1) / 2) * thick
            values, spreads = zip(*(cells[number] for _, cells in rows), strict=True)
            drawn = axes.barh(places, values, thick, label=name, xerr=[spread or 0 for spread in spreads],
                              error_kw={"ecolor": INK, "elinewidth": 1})
            axes.bar_label(drawn, fmt="%.1f", padding=3, fontsize=8)
        axes.set_yticks(range(len(rows)), [label[:28] for label, _ in rows])
        axes.set(xlim=(0, 105), ylim=(len(rows) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")
        axes.legend(ncols=len(names), loc="lower left", bbox_to_anchor=(0, 1))
    return draw(paint, what, (WIDE[0], 70 + 30 * len(rows)), LABELS, top=24)


def histogram(series, what):
    """{name: values}  ->  how often each occurs, as a share of all"""
    def paint(axes):
        joint = np.concatenate([*series.values()])
        edges = np.histogram_bin_edges(joint, 20, None if np.ptp(joint) else (joint[0] - 0.5, joint[0] + 0.5))
        for name, values in series.items():
            axes.stairs(np.histogram(values, edges)[0] / len(values), edges, label=name, fill=len(series) == 1)
        if len(series) > 1:
            axes.legend()
    return draw(paint, what)


def cloud(x, y, labels, what):
    """Two values of every frame, in 0 to 1  ->  one point each, of many frames evenly chosen ones"""
    def paint(axes):
        some = np.unique(np.linspace(0, len(x) - 1, min(MOST_SPOTS, len(x))).round().astype(int))
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8)
        axes.scatter(x[some], y[some], s=7, alpha=0.5, linewidths=0, rasterized=len(some) > 300)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=labels[0], ylabel=labels[1], aspect="equal")
    return draw(paint, what, (320, 320))


def strips(rows, what, low=None, high=None):
    """[(label, values)]  ->  a strip per video, frames from left to right, violet at `low` (the least) to yellow"""
    def paint(axes):
        table = np.full((len(rows), max(len(values) for _, values in rows)), np.nan)
        for line, (_, values) in zip(table, rows, strict=True):
            line[:len(values)] = values
        axes.imshow(table, aspect="auto", interpolation="none", vmin=low, vmax=high)
        axes.set_yticks(range(len(rows)), [label[:32] for label, _ in rows], fontsize=7)
        axes.set_xlabel("frame")
        axes.grid(visible=False)
    return draw(paint, what, (WIDE[0], 50 + 12 * len(rows)), LABELS)
