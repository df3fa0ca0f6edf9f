"""Masks and boxes of a person's first frame: what becomes of them, and what is said of what cannot be."""
import cv2
import numpy as np
import pytest
from PIL import Image

from dataloaders.own.first_masks import filled, given_boxes, given_masks, read_first_masks
from dataloaders.own.video import Frame

SIZE = (20, 30)


def frames(first, last, size=SIZE):
    return [Frame(t, float(t), np.zeros((*size, 3), np.uint8)) for t in range(first, last)]


def labels(number=3):
    found = np.zeros(SIZE, np.uint8)
    found[2:8, 4:10], found[12:15, 20:25] = 1, number
    return found


def png(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(content).save(path)
    return path


def test_a_file_is_for_the_first_frame_that_comes(tmp_path):
    given = read_first_masks(png(tmp_path / "first.png", labels()))
    assert given.object_ids == [1, 3]
    masks = given.of_clip(frames(40, 43), is_first=True).numpy()
    assert np.array_equal(masks[1, 0], labels() == 3) and not masks[:, 1:].any()
    assert not given.of_clip(frames(43, 46), is_first=False).any()


def test_a_folder_is_for_the_frames_it_names(tmp_path):
    png(tmp_path / "m" / "00000.png", np.where(labels() == 1, labels(), 0))
    png(tmp_path / "m" / "12.png", np.where(labels() == 3, labels(), 0))
    given = read_first_masks(tmp_path / "m")
    given.check(total=13)
    assert given.object_ids == [1, 3] and given.of_clip(frames(0, 5), True)[0, 0].any()
    later = given.of_clip(frames(10, 15), False).numpy()
    assert later[1, 2].any() and later.any(axis=(2, 3)).sum() == 1
    with pytest.raises(ValueError, match="12.png: a mask for frame 12, but the video has 12 frames, counted from 0"):
        given.check(total=12)


def test_masks_of_another_size_or_without_an_object_are_refused(tmp_path):
    given = read_first_masks(png(tmp_path / "first.png", labels()[:, :-1]))
    with pytest.raises(ValueError, match="first.png: a mask of 20 x 29 pixels for frame 0, which has 20 x 30"):
        given.of_clip(frames(0, 2), True)
    with pytest.raises(ValueError, match="no object is marked"):
        read_first_masks(png(tmp_path / "none.png", labels() * 0)).check()
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        read_first_masks(tmp_path / "gone.png")
    png(tmp_path / "m" / "dog.png", labels())
    with pytest.raises(ValueError, match="dog.png: expected the number of a frame"):
        read_first_masks(tmp_path / "m")
    png(tmp_path / "n" / "1.png", labels()), png(tmp_path / "n" / "01.png", labels())
    with pytest.raises(ValueError, match="has the same"):
        read_first_masks(tmp_path / "n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no PNG"):
        read_first_masks(tmp_path / "empty")


def test_arrays_and_tensors_of_python():
    import torch
    given = given_masks({0: labels() == 1, 5: torch.from_numpy(labels(7))})
    assert given.object_ids == [1, 7]
    with pytest.raises(ValueError, match="set_masks, frame 0: expected numbers of objects .H, W.* got float64"):
        given_masks({0: labels() * 0.5})
    with pytest.raises(ValueError, match="the number 300; a palette has room"):
        given_masks({0: labels().astype(int) * 100})
    with pytest.raises(ValueError, match="expected the number of a frame"):
        given_masks({"0": labels()})


def test_the_soft_edge_of_a_first_mask_is_no_object(tmp_path, caplog):
    disc = np.hypot(*(np.mgrid[:40, :50] - np.array([20, 25])[:, None, None])) < 12
    edge = cv2.blur(disc * np.uint8(255), (3, 3))
    for mask in (edge, (edge.astype(int) + 42) // 85 * 85, cv2.blur(edge, (5, 5)) // 4):
        for given in (read_first_masks(png(tmp_path / "first.png", mask.astype(np.uint8))), given_masks({0: mask})):
            [found] = given.masks.values()
            assert given.object_ids == [1] and (found.astype(bool) ^ disc).sum() < 0.1 * disc.sum()
    assert "what is more than half white is taken for one object" in caplog.text
    with pytest.raises(ValueError, match="first.png: its masks have 255 within 128: a soft edge, or void"):
        read_first_masks(png(tmp_path / "first.png", np.where(disc, 255, 128).astype(np.uint8)))


def test_boxes_are_filled_and_cut_at_the_border(caplog):
    given = given_boxes(["4,2,6.9,6", (25, 15, 20, 20)])
    assert given.object_ids == [1, 2]
    masks = given.of_clip(frames(0, 2), True).numpy()
    assert masks[0, 0, 2:8, 4:10].all() and masks[0, 0].sum() == 36 and masks[1, 0].sum() == 25
    assert "25,15,20,20: cut at the border" in caplog.text and not masks[:, 1].any()
    for box in ((30, 0, 5, 5), (-9, -9, 5, 5)):
        with pytest.raises(ValueError, match="lies outside the frame, which has 30 x 20 pixels"):
            filled(box, SIZE)
    for text in ("1,2,3", "a,b,c,d", "1,2,0,5", "nan,1,2,3"):
        with pytest.raises(ValueError, match="expected x,y,w,h in pixels"):
            given_boxes([text])


def test_frames_of_two_sizes_are_refused(tmp_path):
    given = given_masks({0: labels()})
    with pytest.raises(ValueError, match="frame 1 has .10, 30. rows and columns, those before it .20, 30."):
        given.of_clip(frames(0, 1) + frames(1, 2, (10, 30)), True)
