"""Support folders as people make them: every kind of mask, and a clear word for what does not fit together."""
import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils

from dataloaders.own.supports import read_supports
from utils.pictures.overlay import palette, save_palette_mask

SIZE = (30, 40)


def box(top=5, bottom=20, left=8, right=30, size=SIZE):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def two_objects():
    """(H, W) uint8: object 1 in the box, object 3 beside it"""
    return box() * np.uint8(1) + box(5, 20, 32, 38) * np.uint8(3)


def write_image(path, size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)).save(path)
    return path


def in_colours(numbers):
    return palette()[numbers]


def with_alpha(mask):
    photo = np.random.default_rng(1).integers(0, 255, (*mask.shape, 3), np.uint8)
    return np.dstack([photo, mask * np.uint8(255)])


def refused(folder, kind=ValueError, **settings):
    with pytest.raises(kind) as error:
        read_supports(folder, **settings)
    assert "\n  " in str(error.value) or "expected" in str(error.value)      # how to fix it
    return str(error.value)


MASKS = {
    "binary": box() * np.uint8(255), "zero and one": box() * np.uint8(1), "bits": box(),
    "16 bits": box() * np.uint16(40_000), "grey as colours": np.dstack([box() * np.uint8(255)] * 3),
    "colours": in_colours(box() * np.uint8(1)), "alpha": with_alpha(box()),
    "opaque": np.dstack([box() * np.uint8(255)] * 3 + [np.full(SIZE, 255, np.uint8)]),
    "opaque colours": np.dstack([in_colours(box() * np.uint8(2)), np.full(SIZE, 255, np.uint8)]),
    "grey with alpha": np.dstack([np.full(SIZE, 90, np.uint8), box() * np.uint8(255)])}


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("names", [("dog.jpg", "dog.png"), ("dog.jpeg", "dog_mask.png"), ("dog.png", "dog_mask.png"),
                                   ("dog.JPG", "dog.PNG")])
def test_every_kind_of_png_is_the_same_mask(tmp_path, kind, names):
    write_image(tmp_path / names[0])
    Image.fromarray(MASKS[kind]).save(tmp_path / names[1], format="PNG")
    found = read_supports(tmp_path)
    assert len(found.images) == 1 and found.names == [str(tmp_path / names[0])]
    assert found.images[0].shape == (*SIZE, 3) and found.images[0].dtype == np.uint8
    assert found.masks[0].dtype == bool and np.array_equal(found.masks[0], box())


def test_a_palette_mask_gives_all_objects_or_the_one_that_is_named(tmp_path):
    write_image(tmp_path / "a.jpg")
    save_palette_mask(tmp_path / "a.png", two_objects())
    everything, third = read_supports(tmp_path).masks[0], read_supports(tmp_path, object_number=3).masks[0]
    assert np.array_equal(everything, two_objects() > 0) and np.array_equal(third, two_objects() == 3)
    assert "has no such object; it has 1, 3" in refused(tmp_path, object_number=2)
    assert "--object 0: expected" in refused(tmp_path, object_number=0)
    Image.fromarray(with_alpha(box())).save(tmp_path / "a.png")
    assert "has no object numbers" in refused(tmp_path, object_number=1)


def test_supports_come_in_the_order_of_their_names_and_may_differ_in_size(tmp_path):
    for number, size in ((10, (30, 40)), (2, (50, 20)), (1, (25, 25))):
        write_image(tmp_path / f"s{number}.jpg", size)
        Image.fromarray(np.full(size, 255, np.uint8)).save(tmp_path / f"s{number}.png")
    (tmp_path / "readme.txt").write_text("not looked at")
    found = read_supports(tmp_path)
    assert [mask.shape for mask in found.masks] == [(25, 25), (50, 20), (30, 40)]
    assert [image.shape[:2] for image in read_supports(tmp_path, shots=2).images] == [(25, 25), (50, 20)]
    assert "--shots 4: " in refused(tmp_path, shots=4) and "--shots 0: " in refused(tmp_path, shots=0)


def add_pair(folder, mask, name="a"):
    write_image(folder / f"{name}.jpg")
    Image.fromarray(mask).save(folder / f"{name}.png")


def test_what_does_not_fit_together_is_named(tmp_path):
    cases = {
        "empty": (lambda f: add_pair(f, np.zeros(SIZE, np.uint8)), r"a\.jpg: its mask is empty"),
        "size": (lambda f: add_pair(f, np.ones((31, 40), np.uint8)), "30 x 40 pixels, its mask 31 x 40"),
        "turned": (lambda f: add_pair(f, np.ones((40, 30), np.uint8)), "One of them is turned"),
        "photo": (lambda f: (write_image(f / "a.jpg"), write_image(f / "a.png")), r"a\.png looks like a photograph"),
        "none": (lambda f: write_image(f / "a.jpg"), r"a\.jpg has no mask"),
        "two": (lambda f: (add_pair(f, MASKS["binary"]), Image.fromarray(MASKS["binary"]).save(f / "a_mask.png")),
                r"a\.jpg has 2 masks \(a\.png, a_mask\.png\)"),
        "alone": (lambda f: (add_pair(f, MASKS["binary"]), (f / "b.json").write_text('{"shapes": []}')),
                  r"b\.json: no image lies beside"),
        "nothing": (lambda f: f.mkdir(), "no image with a mask in this folder"),
        "broken": (lambda f: (write_image(f / "a.jpg"), (f / "a.png").write_bytes(b"\x89PNG")), r"a\.png is no PNG")}
    for name, (make, reason) in cases.items():
        make(tmp_path / name)
        assert re.search(reason, refused(tmp_path / name)), name
    assert "does not exist" in refused(tmp_path / "gone", FileNotFoundError)


def labelme(folder, name, shapes, size=SIZE):
    write_image(folder / f"{name}.jpg", size)
    content = {"version": "5", "imagePath": "../../etc/passwd", "imageData": None, "imageHeight": size[0],
               "imageWidth": size[1], "shapes": shapes}
    (folder / f"{name}.json").write_text(json.dumps(content))


def shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "shape_type": kind, **more}


CORNERS = [[8, 5], [30, 5], [30, 20], [8, 20]]                     # x, y: those of box()


def png_in_base64(mask):
    file = io.BytesIO()
    Image.fromarray(mask).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_labelmes_shapes_cover_what_they_enclose(tmp_path):
    """Against geometry: whether the centre of a pixel lies within; pixels on the outline may go either way."""
    rows, cols = np.mgrid[:SIZE[0], :SIZE[1]] + 0.5
    triangle = (cols > 3) & (rows < 26) & (rows - 2 > (cols - 3) * 24 / 33)
    cases = [(shape("x", CORNERS), box(), 0), (shape("x", [[30, 20], [8, 5]], "rectangle"), box(), 0),
             (shape("x", [[3, 2], [36, 26], [3, 26]]), triangle, 60),
             (shape("x", [[20, 15], [29, 15]], "circle"), np.hypot(rows - 15, cols - 20) < 9, 60),
             (shape("x", [[8, 5], [30, 20]], "mask", mask=png_in_base64(np.ones((15, 22), bool))), box(), 0),
             (shape("x", [[-8, -5], [8, 5], [50, 5]], "mask", mask=png_in_base64(np.ones((45, 60), bool))),
              np.ones(SIZE, bool), 0),
             (shape("x", [[-50, -50], [99, -50], [99, 99], [-50, 99]]), np.ones(SIZE, bool), 0)]
    for number, (drawn, expected, border) in enumerate(cases):
        labelme(tmp_path / str(number), "a", [drawn])
        mask = read_supports(tmp_path / str(number)).masks[0]
        assert mask.any() and (mask ^ expected).sum() <= border, number


def test_one_label_of_several_is_chosen_and_images_without_it_are_left_out(tmp_path):
    labelme(tmp_path, "a", [shape("dog", CORNERS), shape("cat", [[32, 5], [38, 5], [38, 20]]), shape("eye", [[1, 1]],
                                                                                                     "point")])
    labelme(tmp_path, "b", [shape("cat", CORNERS)])
    found = read_supports(tmp_path, category="dog")
    assert len(found.masks) == 1 and np.array_equal(found.masks[0], box())
    assert len(read_supports(tmp_path, category="cat").masks) == 2
    assert "3 labels: cat, dog, eye" in refused(tmp_path)
    assert "has only cat, dog, eye" in refused(tmp_path, category="cow")
    assert "encloses no area" in refused(tmp_path, category="eye")


def coco(folder, annotations, images=None, categories=((1, "dog"), (2, "cat"))):
    images = images or [{"id": n, "file_name": f"i{n}.jpg", "height": SIZE[0], "width": SIZE[1]} for n in (1, 2, 3)]
    for record in images:
        if "/" not in record["file_name"]:
            write_image(folder / "images" / record["file_name"])
    content = {"images": images, "categories": [{"id": n, "name": name} for n, name in categories],
               "annotations": [{"id": n, "iscrowd": 0, **record} for n, record in enumerate(annotations)]}
    folder.mkdir(exist_ok=True)
    (folder / "labels.json").write_text(json.dumps(content))


def rle_of(mask):
    rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def uncompressed(mask):
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat, [not flat[-1]]])))
    counts = np.diff(np.concatenate([[0], edges]))
    return {"size": list(mask.shape), "counts": counts.tolist()}


def test_coco_gives_polygons_and_run_lengths_of_one_category_together(tmp_path):
    polygon = [[float(n) for corner in CORNERS for n in corner]]
    coco(tmp_path, [{"image_id": 1, "category_id": 1, "segmentation": polygon},
                    {"image_id": 1, "category_id": 1, "segmentation": rle_of(box(22, 28, 0, 5)), "iscrowd": 1},
                    {"image_id": 3, "category_id": 1, "segmentation": uncompressed(box())},
                    {"image_id": 2, "category_id": 2, "segmentation": polygon}])
    found = read_supports(tmp_path, category="dog")
    assert [name.rsplit("/", 1)[1] for name in found.names] == ["i1.jpg", "i3.jpg"]
    assert np.array_equal(found.masks[0], box() | box(22, 28, 0, 5)) and np.array_equal(found.masks[1], box())
    assert "2 categories: dog, cat" in refused(tmp_path)
    assert "none of them named 'cow': dog, cat" in refused(tmp_path, category="cow")
    coco(tmp_path, [{"image_id": 1, "category_id": 2, "segmentation": polygon}])
    assert len(read_supports(tmp_path).masks) == 1                # one category is annotated: no need to name it


def test_absurd_annotations_are_refused(tmp_path):
    """Files from anybody: names that lead out, absurd sizes and outlines, what is no number, no file and no JSON."""
    def image(name="i1.jpg", size=SIZE):
        return [{"id": 1, "file_name": name, "height": size[0], "width": size[1]}]

    def annotation(segmentation):
        return [{"image_id": 1, "category_id": 1, "segmentation": segmentation}]
    good = [[8.0, 5.0, 30.0, 5.0, 30.0, 20.0]]
    cases = [
        (lambda f: coco(f, annotation(good), image("../../secret.jpg")), "is none below the folder"),
        (lambda f: coco(f, annotation(good), image("sub/none.jpg")), "no such image"),
        (lambda f: coco(f, annotation(good), image(size=(10 ** 6, 10 ** 6))), "height and width"),
        (lambda f: coco(f, annotation([[1, 2, 3]])), "at least three points"),
        (lambda f: coco(f, annotation([[0, 0, float("nan"), 4, 5, 5]])), "not a finite number"),
        (lambda f: coco(f, annotation([[0, 0, 10 ** 400, 4, 5, 5]])), "not a finite number"),
        (lambda f: coco(f, annotation([[0, 0, 40, 30] * 20_000])), "outlines of more than"),
        (lambda f: coco(f, annotation({"size": [3, 3], "counts": [9]})), "does not fill"),
        (lambda f: coco(f, annotation({"size": list(SIZE), "counts": "\u00ff"})), "RLE"),
        (lambda f: coco(f, annotation(None)), "neither polygons nor an RLE"),
        (lambda f: coco(f, [{"image_id": 9, "category_id": 1}]), "no image has the id 9"),
        (lambda f: coco(f, []), "no annotation"),
        (lambda f: labelme(f, "a", [shape("x", "points")]), "no list of"),
        (lambda f: labelme(f, "a", [shape("x", CORNERS, "mask", mask="????")]), "no PNG in base64"),
        (lambda f: labelme(f, "a", [{"points": CORNERS}]), "shape 0 has no label"),
        (lambda f: labelme(f, "a", []), "0 labels"),
        (lambda f: (write_image(f / "a.jpg"), (f / "a.json").write_text("[1, 2]")), "neither LabelMe nor COCO"),
        (lambda f: (write_image(f / "a.jpg"), (f / "a.json").write_text('{"a": 1}')), "neither LabelMe"),
        (lambda f: (write_image(f / "a.jpg"), (f / "a.json").write_text("{")), "no valid JSON")]
    for number, (make, reason) in enumerate(cases):
        make(tmp_path / str(number))
        assert reason in refused(tmp_path / str(number), (ValueError, FileNotFoundError)), number


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    secret = write_image(tmp_path / "secret" / "i1.jpg")
    coco(tmp_path / "supports", [{"image_id": 1, "category_id": 1, "segmentation": [[8.0, 5, 30, 5, 30, 20]]}])
    (tmp_path / "supports" / "i1.jpg").symlink_to(secret)
    assert "leads out of the folder" in refused(tmp_path / "supports")
