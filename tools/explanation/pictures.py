"""Pictures of a page that explains an episode: heat maps over frames, and the IoU of every frame as a chart.

Frames are (H, W, 3) uint8, masks (H, W) bool, maps (h, w): the network's, one value for 8 x 8 pixels of the input.
"""
import numpy as np

from utils.evaluation.metrics import boundary
from utils.pictures.images import WIDTH, fit
from utils.pictures.overlay import TRUTH_COLOUR
from utils.report import charts
from utils.report.charts import colours

STRIDE = 8           # pixels of the input per position of a map


def enlarge(values, size):
    """A map (h, w), float or bool  ->  (H, W): every position covers its pixels, nothing is interpolated"""
    return values.repeat(STRIDE, axis=0).repeat(STRIDE, axis=1)[:size[0], :size[1]]


def nearest(values, size):
    """(H, W) of any type  ->  `size`, by the nearest pixel"""
    rows, cols = (np.minimum((np.arange(n) + 0.5) * m / n, m - 1).astype(int)
                  for n, m in zip(size, values.shape, strict=True))
    return values[rows[:, None], cols]


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
    axes = charts.Axes((-0.5, len(numbers) - 0.5), (-0.02, 1.02), charts.WIDE, top=charts.LEGEND).grid("frame")
    blue, orange, green, violet = charts.COLOURS
    detail = numbers[clips == view.detail.number]
    axes.box((detail[0] - 0.5, detail[-1] + 0.5), (0, 1), f'fill="{blue}" fill-opacity=".15"')
    for end in np.flatnonzero(np.diff(clips)) + 0.5:
        axes.line([end, end], [0, 1], charts.BORDER)
    axes.line(numbers, true, f'stroke="{green}"')
    axes.dots(numbers, true, green)
    legend = [("true IoU (J)", f'stroke="{green}"')]
    if min_iou is not None:
        predicted = np.array([f.predicted for f in view.frames])
        axes.line(numbers, predicted, f'stroke="{orange}"')
        axes.dots(numbers[taken], predicted[taken], orange, size=6)
        axes.line([-0.5, len(numbers) - 0.5], [min_iou] * 2, f'stroke="{violet}" stroke-dasharray="5 3"')
        legend += [("predicted IoU", f'stroke="{orange}"'),
                   ("entered memory", f'stroke="{orange}" stroke-width="6"'),
                   (f"memory.min_iou = {min_iou:g}", f'stroke="{violet}" stroke-dasharray="5 3"')]
    axes.legend(legend)
    return axes.svg("IoU over the frames of the video")
