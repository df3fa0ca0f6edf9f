"""The strip below a film's frames: covers nothing, says what it should, marks doubt, names colours."""
from types import SimpleNamespace

import numpy as np
import pytest
from material import film_frames

from utils.pictures.caption import DOUBT, GROUND, caption
from utils.pictures.overlay import overlay, palette
from utils.pictures.result_folder import ResultFolder


@pytest.mark.parametrize("width", [80, 320, 1281])
def test_strips_of_a_film_have_one_size_whatever_they_say(width):
    sizes = {caption(width, text, doubted=doubted).shape for text, doubted in (("", False), ("frame 9" * 99, True))}
    named = {caption(width, "a", legend).shape for legend in ([], [("dog", (1, 2, 3))] * 40)}
    assert sizes == {(caption(width, "").shape[0], width, 3)} and len(named) == 1
    assert named.pop()[0] == 2 * sizes.pop()[0]


def test_doubt_is_seen_and_the_legend_has_the_masks_colours():
    plain, doubted = (caption(320, "frame 1", doubted=doubt) for doubt in (False, True))
    assert tuple(plain[-1, -1]) == GROUND and tuple(doubted[-1, -1]) == DOUBT[0] and len(np.unique(plain)) > 3
    found = caption(320, "", [("dog", palette()[1]), ("cat", palette()[2])]).reshape(-1, 3)
    counts = [(found == palette()[n]).all(1).sum() for n in (1, 2, 3)]
    assert counts[0] == counts[1] > 50 and counts[2] == 0


def prediction(mask, iou, **more):
    return SimpleNamespace(mask=mask, iou=iou, remembered=False, probability=mask, more=more)


def test_the_picture_of_a_film_is_left_alone_and_frames_below_the_limit_are_marked(tmp_path):
    image, mask = np.full((120, 320, 3), 90, np.uint8), np.zeros((120, 320), bool)
    mask[30:60, 30:90] = True
    with ResultFolder(tmp_path / "out", 5, more=("corrected",), trust=0.8) as results:
        for t, (iou, more) in enumerate([(0.9, {}), (0.7, {}), (None, {"corrected": 1})]):
            results.add(SimpleNamespace(index=t, time=t / 5, image=image), prediction(mask, iou, **more))
    frames = film_frames(results.film.path)
    assert all(np.abs(frame[:120].astype(int) - overlay(image, mask)).mean() < 6 for frame in frames)
    below = frames[:, 122:, -40:].mean((1, 2))
    assert [np.abs(colour - DOUBT[0]).max() < 25 for colour in below] == [False, True, False]
