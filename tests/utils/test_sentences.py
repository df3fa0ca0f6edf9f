"""What the referring task measures beside J and F: overall IoU, the right object, the right sentence; golden scores."""
import json

import numpy as np
import pytest
import torch
from material import SHARED
from pycocotools import mask as mask_utils

from dataloaders.referring.transforms import size_of, soft_masks
from models.method import Prediction
from utils.evaluation.measuring import MeasuredVideo, _Now
from utils.evaluation.metrics import aggregate, boundary_f, jaccard
from utils.evaluation.sentences import sentence_scores
from utils.evaluation.tables import class_table, measured, note_of, paper_table, paper_tables, summary, table_of

GOLDEN, ANNOTATIONS = SHARED / "parity/cma/metrics_golden.json", SHARED / "data/mini_ytvis/train/train.json"


class Metrics:
    average, tolerance, vc, vc_window = "frame", 0.010, "vipmt", 7


def line(video, number, pixels, others, run=0, name="cat", j=(0.5, 1.0)):
    return {"run": run, "class_id": 1, "class": name, "video": f"{video}_{number}", "object": number,
            "other_objects": others, "frames": [f"{video}/{t}" for t in range(len(j))], "j": list(j), "f": list(j),
            "f_davis": [x / 2 for x in j],
            "vc": [], "vc_variant": "vipmt", "vc_window": 7, "pixels": pixels, "average": "frame", "tolerance": 0.01}


LINES = [line("a", 1, [[90, 100], [5, 150]], [2]), line("a", 2, [[10, 100], [60, 90]], [1]),
         line("b", 1, [[40, 50]], [], j=(1.0, 1.0, 1.0, 1.0))]


def test_pairs_are_counted_as_a_loop_does():
    found = sentence_scores(LINES, 0.6, 0.8)
    assert found["jf"] == pytest.approx(0.7) and found["iou"] == (90 + 10 + 40) / 250
    assert found["right_object"] == 0.5          # the first mask lies on its own object, the second on the first's
    assert found["right_sentence"] == 1.0        # object 1: 0.90 with its own against 0.67; object 2: 0.10 against 0.03
    deaf = [line("a", 1, [[50, 100], [20, 90]], [2]), line("a", 2, [[20, 90], [50, 100]], [1])]    # one mask for both
    assert sentence_scores(deaf, 0, 0)["right_sentence"] == 0.5 == sentence_scores(deaf, 0, 0)["right_object"]
    assert set(sentence_scores(LINES[2:], 0, 0)) == {"jf", "f_davis", "iou"}
    assert sentence_scores([{"j": [1]}], 0, 0) == {}


def test_the_support_decides_where_masks_lie_on_its_category_whatever_is_asked():
    def asked(own, other, of_class):
        return line("a", 1, [[own, 100], [other, 100]], [2]) | {"of_class": of_class}

    deaf = [asked(60, 10, [True, False]), asked(10, 60, [False, True])]      # one mask, either sentence
    found = sentence_scores(deaf, 0, 0)
    assert (found["right_category"], found["right_object"]) == (1.0, 0.5)
    heard = [asked(60, 10, [True, False]), asked(60, 10, [False, True])]
    found = sentence_scores(heard, 0, 0)
    assert (found["right_category"], found["right_object"]) == (0.5, 1.0)
    assert "right_category" not in sentence_scores([asked(60, 10, [True, True])], 0, 0)


def test_runs_do_not_mix_and_every_frame_counts_alike():
    again = [{**one, "run": 1, "pixels": [[x, 200] for x, _ in one["pixels"]]} for one in LINES]
    table = class_table([*LINES, *again])
    assert table.header[:-1] == ["class", "videos", "J", "F (0.010)", "VC7", "J&F", "F (0.008)", "overall IoU",
                            "right object", "right sentence"]
    mean = table.rows[-1]
    assert mean[2] == pytest.approx((100 * (1.5 + 1.5 + 4) / 8, 0)) and mean[6][0] == pytest.approx(50 * 7 / 8)
    assert mean[7][0] == pytest.approx((56 + 70 / 3) / 2)
    assert aggregate(LINES)["jf"] == pytest.approx(7 / 8) and "overall IoU 39.7 ± 23.1" in summary([*LINES, *again])
    assert measured([{1: LINES}], ["J&F 1"])["J&F 1"] == (pytest.approx(87.5), None)


def test_pixels_of_all_objects_are_added_up_over_clips():
    rng = np.random.default_rng(0)
    masks, truth, other = rng.random((3, 5, 6, 7)) < 0.5
    video = MeasuredVideo({"run": 0}, Metrics, _Now)
    for clip in (slice(0, 3), slice(3, 5)):
        video.add(Prediction(torch.zeros(1, 1, 1, 1)), masks[clip], truth[clip], other[None, clip])
    assert video.line()["f_davis"] == pytest.approx(boundary_f(masks, truth), abs=1e-6)
    assert video.line()["pixels"] == [[int((masks & x).sum()), int((masks | x).sum())] for x in (truth, other)]


def test_tables_of_the_paper_have_its_means_and_say_what_they_leak():
    for number in ("1", "2"):
        table = paper_tables("cma")[number]
        for row in table.rows.values():
            for metric in "JF":
                folds = np.mean([row[f"{metric} {fold}"] for fold in (1, 2, 3, 4)])
                assert row[f"{metric} mean"] == pytest.approx(folds, abs=0.06)
    assert table_of("ref_ytvos")[:2] == ("cma", "1") and "hardly about new classes" in note_of("ref_sailvos")
    rows = paper_table({1: LINES}, "ref_ytvos", "mine").rows
    assert [row[0] for row in rows] == ["CMA (paper, ref_ytvos)", "mine"] and rows[1][1][0] == pytest.approx(87.5)


def moved(masks, down, right):
    out = np.zeros_like(masks)
    rows, cols = masks.shape[1:]
    out[:, max(down, 0):rows + min(down, 0), max(right, 0):cols + min(right, 0)] = masks[
        :, max(-down, 0):rows - max(down, 0), max(-right, 0):cols - max(right, 0)]
    return out


@pytest.mark.skipif(not (GOLDEN.is_file() and ANNOTATIONS.is_file()), reason="the golden numbers are not there")
def test_j_and_f_are_those_of_the_release():
    expected, total = json.loads(GOLDEN.read_text()), np.zeros(2, int)
    every = {one["id"]: one["segmentations"] for one in json.loads(ANNOTATIONS.read_text())["annotations"]}
    for one in expected["sequences"]:
        rles = every[one["annotation_id"]][:one["frames"]]
        rles = [mask_utils.frPyObjects(r, *r["size"]) if r and isinstance(r["counts"], list) else r for r in rles]
        size = next(r["size"] for r in rles if r)
        truth = np.stack([mask_utils.decode(r).astype(bool) if r else np.zeros(size, bool) for r in rles])
        masks = moved(truth, *one["parameter"]) if one["prediction"] == "shifted" else np.roll(truth, -1, axis=0)
        if one["prediction"] == "network_scale":
            truth, masks = (soft_masks(torch.from_numpy(x), size_of(x.shape[1:], 360)).numpy() for x in (truth, masks))
        assert truth.sum((1, 2)).tolist() == one["area_truth"] and masks.sum((1, 2)).tolist() == one["area_prediction"]
        assert jaccard(masks, truth) == pytest.approx(one["J"], abs=1e-12)
        assert boundary_f(masks, truth, 0.010) == pytest.approx(one["F"], abs=1e-12)
        total += [(masks & truth).sum(), (masks | truth).sum()]
    overall = expected["overall"]
    assert total.tolist() == [overall["intersection"], overall["union"]]
    edge = {name: np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:np.prod(expected["edge_size"])].reshape(
        expected["edge_size"]).astype(bool) for name, text in expected["edge_masks"].items()}
    for one in expected["edge"]:
        pair = edge[one["prediction"]], edge[one["truth"]]
        assert (jaccard(*pair), boundary_f(*pair, 0.010)) == pytest.approx((one["J"], one["F"]), abs=1e-12)
