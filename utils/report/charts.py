"""Charts of a run's report as SVG text: curves, bars, points, rows of frames. No display, no script, no library.

Functions take plain numbers and return HTML; text that comes from files is escaped here. Colours are classes of
tools/report_page.css, so that both colour themes are served.
"""
import math
from html import escape

import numpy as np

LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 32
MOST_BINS = 300          # points of a curve: longer ones are shown as means of neighbours
COLOURS = 4              # s0 to s3 of the style sheet


def curves(series, size=(360, 190), low=None, high=None, x_label="step"):
    """{name: list of (x, y)}  ->  line chart with its legend; low and high: ends of the y axis, None as the data are

    A name goes with a colour of the style sheet by its position, so at most COLOURS of them.
    """
    assert 0 < len(series) <= COLOURS and all(series.values()), list(series)
    thinned = {name: thin(points) for name, points in series.items()}
    xs, ys = ([point[i] for points in thinned.values() for point in points] for i in (0, 1))
    low, high = min(ys) if low is None else low, max(ys) if high is None else high
    ticks = nice_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    x, y = scale(min(xs), max(xs), LEFT, size[0] - RIGHT), scale(low, high, size[1] - BOTTOM, TOP)
    parts = grid(size, x, y, nice_ticks(min(xs), max(xs), 5), ticks, x_label)
    for number, (name, points) in enumerate(thinned.items()):
        parts += curve(points, x, y, name, number, len(points) < 30)
    return svg(size, parts, f"{', '.join(series)} over the {x_label}"), legend(series if len(series) > 1 else ())


def curve(points, x, y, name, number, dots):
    """One line of a chart, as SVG parts; dots: also a dot for every point, with its value as a title"""
    path = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in points)
    shown = points if dots else points[-1:]
    return [f'<path class="s{number}" d="M{path}"/>',
            *(f'<circle class="s{number}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.6"><title>{escape(name)}: {b:.4g} at '
              f"{a:g}</title></circle>" for a, b in shown)]


def thin(points, most=MOST_BINS):
    """Points (x, y) in order  ->  at most `most` of them: means of equally many neighbours, the last group shorter"""
    size = -(-len(points) // most)
    groups = (points[i:i + size] for i in range(0, len(points), size))
    return [tuple(np.mean(group, axis=0).tolist()) for group in groups]


def bars(rows, size=(720, 30), most=100.0):
    """[(label, [(value, spread or None)])]  ->  horizontal bars, one group per row; values in 0 to `most`"""
    per, left = size[1], 190
    height = TOP + per * len(rows) + BOTTOM
    x, parts = scale(0, most, left, size[0] - 50), []
    for tick in nice_ticks(0, most, 5):
        parts.append(f'<path class="grid" d="M{x(tick):.1f} {TOP}V{height - BOTTOM}"/>'
                     f'<text x="{x(tick):.1f}" y="{height - BOTTOM + 15}" text-anchor="middle">{tick:g}</text>')
    for row, (label, values) in enumerate(rows):
        top, thick = TOP + per * row + 3, (per - 6) / len(values)
        parts.append(f'<text x="{left - 8}" y="{top + per / 2 + 1:.1f}" text-anchor="end">{escape(label[:28])}'
                     f"<title>{escape(label)}</title></text>")
        for number, (value, spread) in enumerate(values):
            parts += bar(x, top + number * thick, thick, value, spread, number)
    return svg((size[0], height), parts, "bars per class")


def bar(x, top, thick, value, spread, number):
    """One bar with its value beside it and a line for its spread."""
    text = f"{value:.1f}" + (f" ± {spread:.1f}" if spread is not None else "")
    end, middle = x(value), top + thick / 2
    parts = [f'<rect class="s{number}" x="{x(0):.1f}" y="{top:.1f}" width="{max(end - x(0), 0.5):.1f}" '
             f'height="{thick - 1:.1f}"><title>{text}</title></rect>']
    if spread:
        first, end = x(max(value - spread, 0)), x(value + spread)
        parts.append(f'<path class="spread" d="M{first:.1f} {middle:.1f}H{end:.1f}"/>')
    return [*parts, f'<text class="value" x="{end + 5:.1f}" y="{middle + 3.5:.1f}">{value:.1f}</text>']


def points(predicted, true, remembered, threshold=None, size=(380, 380), most=2500):
    """Predicted and true IoU of frames, whether each entered memory; all (N,)  ->  points over the unit square

    threshold: memory.min_iou, a line; of more than `most` frames evenly chosen ones are drawn.
    """
    x, y = scale(0, 1, LEFT, size[0] - RIGHT), scale(0, 1, size[1] - BOTTOM, TOP)
    ticks = nice_ticks(0, 1, 5)
    parts = grid(size, x, y, ticks, ticks, "true IoU")
    parts.append(f'<path class="even" d="M{x(0):.1f} {y(0):.1f}L{x(1):.1f} {y(1):.1f}"/>')
    chosen = np.unique(np.linspace(0, len(true) - 1, min(most, len(true))).round().astype(int))
    for kind in (False, True):
        spots = "".join(f"M{x(true[i]):.1f} {y(predicted[i]):.1f}h0" for i in chosen if remembered[i] == kind)
        parts.append(f'<path class="spots {"taken" if kind else "left"}" d="{spots}"/>' if spots else "")
    if threshold is not None:
        parts.append(f'<path class="threshold" d="M{LEFT} {y(threshold):.1f}H{size[0] - RIGHT}"/>')
    return svg(size, parts, "predicted IoU against true IoU, one point per frame")


def ranked(values, marked, size=(720, 200)):
    """Values in 0 to 1 in order, {position: label} of some  ->  all as one falling curve, those with a dot and label"""
    x, y = scale(0, max(len(values) - 1, 1), LEFT, size[0] - RIGHT), scale(0, 1, size[1] - BOTTOM, TOP)
    parts = grid(size, x, y, nice_ticks(0, max(len(values) - 1, 1), 5), nice_ticks(0, 1, 4), "videos, best first")
    path = "L".join(f"{x(i):.1f} {y(v):.1f}" for i, v in thin(list(enumerate(values)), 600))
    parts.append(f'<path class="s0" d="M{path}"/>')
    parts += [f'<circle class="s1" cx="{x(i):.1f}" cy="{y(values[i]):.1f}" r="4"><title>{escape(label)}: J '
              f"{values[i]:.3f}</title></circle>" for i, label in marked.items()]
    return svg(size, parts, "mean J of every video, best first")


def frame_rows(rows, width=720, height=15, most=120):
    """[(label, [share taken or None per frame], title)]  ->  one row of cells per video, full where frames were taken

    Of rows longer than `most` several frames share a cell, which shows their mean.
    """
    left, longest = 190, max(min(len(cells), most) for _, cells, _ in rows)
    cell, parts = (width - left - RIGHT) / longest, []
    for number, (label, cells, title) in enumerate(rows):
        top, shown = TOP + number * height, [y for _, y in thin(list(enumerate(cells)), most)]
        parts.append(f'<text class="small" x="{left - 8}" y="{top + height - 4}" text-anchor="end">{escape(label[:32])}'
                     f"<title>{escape(title)}</title></text>")
        parts.append(f'<rect class="empty" x="{left}" y="{top}" width="{cell * len(shown):.1f}" '
                     f'height="{height - 2}"/>')
        parts += [f'<rect class="taken" x="{left + i * cell:.1f}" y="{top}" width="{max(cell - 0.6, 0.4):.1f}" '
                  f'height="{height - 2}" opacity="{share:.2f}"/>' for i, share in enumerate(shown) if share]
    return svg((width, TOP + len(rows) * height + 4), parts, "frames that entered memory, video by video")


# -- what all charts need -------------------------------------------------------------------------------------------

def svg(size, parts, what):
    return (f'<svg viewBox="0 0 {size[0]} {size[1]}" style="max-width:{1.25 * size[0]:.0f}px" role="img" '
            f'aria-label="{escape(what)}">{"".join(parts)}</svg>')


def legend(names):
    return " ".join(f'<span class="key s{number}">{escape(name)}</span>' for number, name in enumerate(names))


def grid(size, x, y, x_ticks, y_ticks, x_label):
    """Lines and numbers of both axes, as SVG parts; ticks of x beyond the chart are left out."""
    (width, height), floor = size, size[1] - BOTTOM
    x_ticks = [tick for tick in x_ticks if LEFT - 0.5 <= x(tick) <= width - RIGHT + 0.5]
    parts = [f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{width - RIGHT}"/>'
             f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>' for tick in y_ticks]
    parts += [f'<text x="{x(tick):.1f}" y="{floor + 15}" text-anchor="middle">{tick:g}</text>' for tick in x_ticks]
    middle = (LEFT + width - RIGHT) / 2
    return [*parts, f'<text x="{middle:.0f}" y="{height - 3}" text-anchor="middle">{escape(x_label)}</text>']


def scale(low, high, start, end):
    """Value  ->  pixel: a function; everything lies in the middle where there is only one value"""
    span = high - low
    return lambda value: start + (end - start) * ((value - low) / span if span else 0.5)


def nice_ticks(low, high, count=4):
    """Round numbers that cover low to high, about `count` of them; steps are 1, 2, 2.5 or 5 times a power of ten."""
    span = high - low or abs(high) or 1.0
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]
