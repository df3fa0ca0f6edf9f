"""Listening: both supports through one video, and the table of it by hand."""
import numpy as np
import torch

from dataloaders.episode import Clip
from models.method import Prediction
from utils.evaluation.listening import Listening, listening_table


class Fixed:
    """A Segmenter that says one mask."""

    def __init__(self, mask):
        self.mask = torch.tensor(mask)

    def prepare(self, clip):
        return "prepared"

    def __call__(self, prepared, clip):
        assert prepared == "prepared"
        return Prediction(self.mask.float()[None, None] - 0.5, {"scale": torch.ones(1)})


def test_the_wrong_supports_are_measured_beside_the_right_ones():
    truth, right, wrong = ([[1, 1, 0, 0]], [[1, 1, 1, 0]], [[0, 1, 1, 1]])
    segment = Listening(Fixed(right), Fixed(wrong))
    clip = Clip(torch.zeros(1, 3, 1, 4), torch.tensor(truth, dtype=torch.bool)[None, None])
    prediction = segment(segment.prepare(clip), clip)
    assert torch.equal(prediction.margins > 0, torch.tensor(right, dtype=torch.bool)[None, None])
    assert prediction.per_frame["j_swapped"].tolist() == [1 / 4] and prediction.per_frame["overlap"].tolist() == [2 / 4]
    assert prediction.per_frame["scale"].tolist() == [1]


def test_the_table_averages_frames_then_classes():
    def line(name, both, right, wrong, overlap):
        return {"class": name, "shows_both": both, "j": right, "j_swapped": wrong, "overlap": overlap}

    lines = [line("a", [True, False], [0.8, 0.6], [0.2, 0.6], [0.1, 1.0]), line("b", [True], [0.5], [0.5], [0.4]),
             line("a", [False], [0.1], [0.1], [0.1]), {"class": "a", "j": [1.0]}]
    table = listening_table(lines)
    rows = {name: [x if isinstance(x, str) else x[0] for x in cells] for name, *cells in table.rows}
    np.testing.assert_allclose(rows["a, all frames"][:3], [50, 30, 20])
    np.testing.assert_allclose(rows["mean, all frames"][:3], [50, 40, 10])
    np.testing.assert_allclose(rows["a, both shown"][:3], [80, 20, 60])
    assert rows["mean, both shown"][3] == "0.25" and "difference" in table.markdown()
    assert listening_table(lines[-1:]) is None
