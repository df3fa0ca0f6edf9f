"""Whether an object is there: certainty and the halves' agreement, by hand."""
import pytest
import torch

from models.method import Prediction
from utils.evaluation.presence import Presence, certainty, overlap


def test_certainty_is_the_mean_probability_of_what_is_marked():
    margins = torch.tensor([[[2.0, -1.0], [0.5, 0.0]], [[-1.0, -2.0], [0.0, -3.0]]])
    sigmoid = 1 / (1 + torch.exp(-torch.tensor([2.0, 0.5])))
    torch.testing.assert_close(certainty(margins), torch.stack([sigmoid.mean(), torch.tensor(0.0)]))


def test_overlap_is_the_iou_and_0_where_both_are_empty():
    a = torch.tensor([[[1, 1, 0]], [[0, 0, 0]], [[0, 0, 0]]]).bool()
    b = torch.tensor([[[0, 1, 1]], [[0, 0, 0]], [[1, 0, 0]]]).bool()
    assert overlap(a, b).tolist() == pytest.approx([1 / 3, 0, 0])


@pytest.mark.parametrize("halves", [0, 2])
def test_presence_is_their_product_as_a_mean_over_the_clip(halves):
    class Says:
        def __init__(self, margins):
            self.margins = margins

        def prepare(self, clip):
            return "prepared"

        def __call__(self, prepared, clip):
            assert prepared == "prepared"
            return Prediction(self.margins[None], {"pred_iou": torch.ones(2)})
    whole = torch.tensor([[[1.0, 1.0]], [[3.0, -1.0]]])
    one, two = torch.tensor([[[1.0, 1.0]], [[1.0, -1.0]]]), torch.tensor([[[1.0, -1.0]], [[1.0, -1.0]]])
    judged = Presence(Says(whole), [Says(one), Says(two)][:halves])
    said = judged(judged.prepare(None), None)
    shares = torch.tensor([1.0, 3.0]).sigmoid() * (torch.tensor([0.5, 1.0]) if halves else 1)
    torch.testing.assert_close(said.per_frame["presence"], shares.mean().expand(2))
    assert torch.equal(said.margins[0], whole) and torch.equal(said.per_frame["pred_iou"], torch.ones(2))
