"""tracks.json and tracks_coco.json, read by pycocotools and by our own index."""
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from dataloaders.datasets.ytvis import YouTubeVISIndex
from dataloaders.own.tracks import Tracks

SIZE = 20, 30


@pytest.fixture
def written(tmp_path):
    """->  folder of the files, the masks (T, H, W) that went in"""
    folder = tmp_path / "JPEGImages" / "walk"
    folder.mkdir(parents=True)
    files = [folder / f"{5 * t:03d}.jpg" for t in range(4)]
    for file in files:
        Image.new("RGB", SIZE[::-1]).save(file)
    masks = np.zeros((4, *SIZE), np.uint8)
    masks[:3, 2:8, 3:9], masks[1:3, 10:14, 20:29] = 1, 2                       # the last frame is empty
    tracks = Tracks(SimpleNamespace(name=str(folder), files=files))
    for t, mask in enumerate(masks):
        objects = {n: (3 - n, 0.5 + 0.1 * t) for n in (1, 2) if (mask == n).any()}
        tracks.add(SimpleNamespace(index=t, mask=mask, objects=objects))
    assert tracks.write(tmp_path, ["dog", "cat"]) == {1: "cat", 2: "dog"}
    return tmp_path, masks


def test_youtube_vis_has_null_where_an_object_is_absent_and_our_index_reads_it(written):
    root, masks = written
    content = json.loads((root / "tracks.json").read_text())
    assert [(a["id"], a["category_id"], a["score"]) for a in content["annotations"]] == [(1, 2, 0.6), (2, 1, 0.65)]
    late = content["annotations"][1]
    assert late["segmentations"][0] is late["bboxes"][0] is late["areas"][0] is None
    assert late["bboxes"][1:] == [[20, 10, 9, 4]] * 2 + [None] and late["areas"][1:] == [36, 36, None]
    index = YouTubeVISIndex(root, "tracks.json")
    video = index.videos(1)[0]
    for t in range(4):
        assert index.file_name(video, t) == f"walk/{5 * t:03d}.jpg" and index.read_image(video, t).shape == (*SIZE, 3)
        for category, number in ((2, 1), (1, 2)):
            assert np.array_equal(index.read_mask(video, t, category), masks[t] == number)


def test_pycocotools_reads_the_other_one(written, capsys):
    root, masks = written
    coco = COCO(root / "tracks_coco.json")
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["dog", "cat"]
    for t, image in enumerate(coco.loadImgs(coco.getImgIds())):
        assert image["file_name"] == f"walk/{5 * t:03d}.jpg" and (image["height"], image["width"]) == SIZE
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert sorted(a["track_id"] for a in found) == [n for n in (1, 2) if (masks[t] == n).any()]
        for a in found:
            assert np.array_equal(coco.annToMask(a) > 0, masks[t] == a["track_id"]) and a["area"] == (
                masks[t] == a["track_id"]).sum()
