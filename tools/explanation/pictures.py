"""Pictures of a page that explains an episode: heat maps over frames, and the IoU of every frame as a chart.

Frames are (H, W, 3) uint8, masks (H, W) bool, maps (h, w): the network's, one value for 8 x 8 pixels of the input.
"""
import cv2
import numpy as np

from utils.evaluation.metrics import boundary
from utils.pictures.images import WIDTH, fit
from utils.pictures.overlay import TRUTH_COLOUR
from utils.report import charts

STRIDE = 8           # pixels of the input per position of a map
TABLE = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]   # (256, 3) RGB


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


def colour_bar():
    """The colour scale, 0 on the left, 1 on the right  ->  (12, 240, 3) uint8"""
    return np.repeat(colours(np.linspace(0, 1, WIDTH))[None], 12, axis=0)


def iou_chart(view, min_iou=None):
    """True and predicted IoU over the frames of a VideoView, its clips and its memory  ->  SVG

    min_iou: threshold of memory, None where nothing is predicted
    """
    numbers, clips = np.arange(len(view.frames)), np.array([f.clip for f in view.frames])
    true, taken = np.array([f.j for f in view.frames]), np.array([f.remembered for f in view.frames])
    ends = np.flatnonzero(np.diff(clips)) + 0.5

    def paint(axes):
        detail = numbers[clips == view.detail.number]
        axes.axvspan(detail[0] - 0.5, detail[-1] + 0.5, color=charts.COLOURS[0], alpha=0.15, linewidth=0)
        axes.vlines(ends, 0, 1, color=charts.INK, alpha=0.3, linewidth=0.8)
        axes.plot(numbers, true, "o-", color=charts.COLOURS[2], label="true IoU (J)")
        if min_iou is not None:
            predicted = np.array([f.predicted for f in view.frames])
            axes.plot(numbers, predicted, "o-", color=charts.COLOURS[1], markerfacecolor="none", label="predicted IoU")
            axes.plot(numbers[taken], predicted[taken], "o", color=charts.COLOURS[1], label="entered memory")
            axes.axhline(min_iou, color=charts.COLOURS[3], linestyle="--", label=f"memory.min_iou = {min_iou:g}")
        axes.set(xlabel="frame", xlim=(-0.5, len(numbers) - 0.5), ylim=(-0.02, 1.02))
        axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    return charts.draw(paint, "IoU over the frames of the video", charts.WIDE, top=24)
