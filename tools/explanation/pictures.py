"""Pictures of a page that explains an episode: masks and heat maps over frames, as JPEG, and a line chart, as SVG.

Frames are (H, W, 3) uint8, masks (H, W) bool, maps (h, w): the network's, one value for 8 x 8 pixels of the input.
"""
import base64

import cv2
import numpy as np

from utils.evaluation.metrics import boundary
from utils.pictures.overlay import TRUTH_COLOUR, overlay

WIDTH = 240          # of every picture, in pixels
QUALITY = 82         # JPEG
STRIDE = 8           # pixels of the input per position of a map
TABLE = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]   # (256, 3) RGB


def fit(frame, width=WIDTH):
    """A frame, or a mask, at the width of the page; masks keep their values."""
    rows = max(1, round(frame.shape[0] * width / frame.shape[1]))
    if frame.dtype == bool:
        return cv2.resize(frame.astype(np.uint8), (width, rows), interpolation=cv2.INTER_NEAREST) > 0
    shrink = frame.shape[1] > width
    return cv2.resize(frame, (width, rows), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)


def enlarge(values, size):
    """A map (h, w), float or bool  ->  (H, W): every position covers its pixels, nothing is interpolated"""
    return values.repeat(STRIDE, axis=0).repeat(STRIDE, axis=1)[:size[0], :size[1]]


def nearest(values, size):
    """(H, W) of any type  ->  `size`, by the nearest pixel"""
    rows, cols = (np.minimum((np.arange(n) + 0.5) * m / n, m - 1).astype(int)
                  for n, m in zip(size, values.shape, strict=True))
    return values[rows[:, None], cols]


def colours(values):
    """(...) in [0, 1]  ->  (..., 3) uint8 RGB, violet for 0 to yellow for 1"""
    index = (np.clip(values, 0, 1) * 255).round().astype(np.uint8)
    return TABLE[index]


def segmentation(frame, mask, truth=None):
    """A mask in red over the frame, the outline of the truth in green  ->  (rows, WIDTH, 3) uint8"""
    return overlay(fit(frame), fit(mask), None if truth is None else fit(truth))


def heat_map(frame, values, shown=None, line=None, truth=None, top=1.0):
    """A map (h, w) in colour over the grey frame  ->  (rows, WIDTH, 3) uint8

    top: the value that is yellow; shown (h, w) bool: where the map has values, elsewhere the frame is grey and dark;
    line (h, w) bool: outlined in white; truth (H, W) bool: outlined in green
    """
    size, small = frame.shape[:2], fit(frame)
    grey = np.repeat(small.mean(axis=-1, keepdims=True), 3, axis=-1)

    def to_page(values):
        return nearest(enlarge(values, size), small.shape[:2])
    picture = 0.3 * grey + 0.7 * colours(to_page(values) / max(top, 1e-12))
    if shown is not None:
        picture = np.where(to_page(shown)[..., None], picture, 0.6 * grey)
    picture = picture.round().astype(np.uint8)
    if truth is not None:
        picture[boundary(fit(truth))] = TRUTH_COLOUR
    if line is not None:
        picture[boundary(to_page(line))] = 255
    return picture


def encode_jpeg(picture):
    """(rows, columns, 3) uint8 RGB  ->  bytes"""
    _, code = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return code.tobytes()


def data_uri(jpeg):
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def colour_bar():
    """The colour scale, 0 on the left, 1 on the right  ->  (12, 240, 3) uint8"""
    return np.repeat(colours(np.linspace(0, 1, WIDTH))[None], 12, axis=0)


# -- line chart -----------------------------------------------------------------------------------------------------

SIZE, LEFT, RIGHT, TOP, BOTTOM = (960, 260), 44, 12, 12, 34


def chart(view, min_iou):
    """Predicted and true IoU over the frames of a VideoView, clips, memory, and the threshold  ->  SVG, as text

    min_iou: None where nothing is predicted
    """
    x, y = scales(len(view.frames))
    true = [(x(i), y(f.j), f"frame {i}: true IoU {f.j:.3f}", False) for i, f in enumerate(view.frames)]
    predicted = [(x(i), y(f.predicted), f"frame {i}: predicted IoU {f.predicted:.3f}", f.remembered)
                 for i, f in enumerate(view.frames) if f.predicted is not None]
    parts = [*background(view, x, y), *line(true, "true"), *line(predicted, "predicted")]
    if min_iou is not None:
        parts.append(f'<path class="threshold" d="M{LEFT} {y(min_iou):.1f}H{SIZE[0] - RIGHT}"/>')
    what = "True IoU" if min_iou is None else "Predicted and true IoU, and the threshold of memory,"
    return (f'<svg viewBox="0 0 {SIZE[0]} {SIZE[1]}" role="img" aria-label="{what} over the frames of the video">'
            f'{"".join(parts)}</svg>')


def scales(count):
    """Frame number and IoU  ->  pixels: two functions"""
    width, height = SIZE[0] - LEFT - RIGHT, SIZE[1] - TOP - BOTTOM
    return (lambda frame: LEFT + (frame + 0.5) * width / count), (lambda iou: TOP + (1 - iou) * height)


def background(view, x, y, most_labels=24):
    """Axes, clip boundaries and the clip that is shown in full, as SVG parts."""
    (width, height), numbers = SIZE, [f.clip for f in view.frames]
    first, count = numbers.index(view.detail.number), numbers.count(view.detail.number)
    parts = [f'<rect class="detail" x="{x(first - 0.5):.1f}" y="{TOP}" width="{x(count) - x(0):.1f}" '
             f'height="{height - TOP - BOTTOM}"/>']
    for iou in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path class="grid" d="M{LEFT} {y(iou):.1f}H{width - RIGHT}"/>'
                     f'<text x="{LEFT - 6}" y="{y(iou) + 4:.1f}" text-anchor="end">{iou:g}</text>')
    starts = [numbers.index(clip) for clip in range(numbers[-1] + 1)]
    labelled = starts[::-(-len(starts) // most_labels)]                # labels are thinned out, not the lines
    parts += [f'<path class="clip" d="M{x(i - 0.5):.1f} {TOP}V{height - BOTTOM}"/>' for i in starts]
    parts += [f'<text x="{x(i):.1f}" y="{height - 18}" text-anchor="middle">{i}</text>' for i in labelled]
    return [*parts, f'<text x="{width / 2:.0f}" y="{height - 3}" text-anchor="middle">frame</text>']


def line(points, name):
    """points: list of (x, y, title, whether filled)  ->  SVG parts of the CSS class `name`"""
    if not points:
        return []
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y, *_ in points)
    dots = [f'<circle class="{name}{" full" if full else ""}" cx="{x:.1f}" cy="{y:.1f}" r="3.5">'
            f"<title>{title}</title></circle>" for x, y, title, full in points]
    return [f'<path class="{name}" d="M{path}"/>', *dots]
