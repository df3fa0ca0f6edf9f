"""Support folders as people make them: every kind of mask, and a clear word for what does not fit together."""
import base64
import io
import json
import os
import re

import cv2
import material
import numpy as np
import pytest
import torch
from material import rle_of, run_lengths
from PIL import Image

from dataloaders.mask_values import as_mask
from dataloaders.own.folder import pictures_in
from dataloaders.own.supports import read_supports
from utils.pictures.overlay import palette, save_palette_mask

SIZE = (30, 40)


def box(top=5, bottom=20, left=8, right=30, size=SIZE):
    return material.box(top, left, bottom, right, size)


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


def soft(mask, width):
    return cv2.GaussianBlur(mask * np.uint8(255), (width, width), 0)


DISC = np.hypot(*(np.mgrid[:60, :80] - np.array([30, 40])[:, None, None])) < 20
BORDER = cv2.dilate(DISC.astype(np.uint8), np.ones((7, 7))).astype(bool) & ~DISC
NEARLY = {
    "blurred": soft(DISC, 5), "very soft": soft(DISC, 21), "matting": soft(DISC, 9) // 8 * 7, "16 bits": None,
    "few greys": ((cv2.blur(DISC * np.uint8(255), (3, 3)).astype(int) + 42) // 85 * 85).astype(np.uint8),
    "dark": (soft(DISC, 9).astype(int) * 60 // 255).astype(np.uint8),
    "dim": (soft(DISC, 9).astype(int) * 100 // 255).astype(np.uint8),
    "few of 16 bits": soft(DISC, 3).astype(np.uint16) * 257, "few reds": soft(DISC, 3)[..., None] * np.uint8([1, 0, 0]),
    "VOC in colour": in_colours(DISC * np.uint8(3) + BORDER * np.uint8(255)),
    "one dark grey": DISC * np.uint8(255) + BORDER * np.uint8(90), "VOC": DISC * np.uint8(1) + BORDER * np.uint8(255),
    "VOC of many": (DISC * (1 + np.mgrid[:60, :80][1] // 4) + BORDER * 255).astype(np.uint8),
    "many objects": (DISC * (1 + np.mgrid[:60, :80][1] // 4)).astype(np.uint8),
    "soft colour": np.dstack([soft(DISC, 9), soft(DISC, 9) // 3, soft(DISC, 9) // 5])}
NEARLY["16 bits"] = soft(DISC, 9).astype(np.uint16) * 257


@pytest.mark.parametrize(("kind", "palette_of_greys"), [(kind, False) for kind in NEARLY] + [
    (kind, True) for kind, values in NEARLY.items() if values.dtype == np.uint8 and values.ndim == 2])
def test_soft_edges_are_cut_at_half_and_a_void_border_is_no_object(tmp_path, kind, palette_of_greys):
    write_image(tmp_path / "a.jpg", DISC.shape)
    image = Image.fromarray(NEARLY[kind])
    image = image.convert("P") if palette_of_greys else image
    image.save(tmp_path / "a.png")
    mask = read_supports(tmp_path).masks[0]
    assert (mask & DISC).sum() / (mask | DISC).sum() > 0.93


def test_a_void_border_of_a_palette_mask_is_no_object(tmp_path):
    write_image(tmp_path / "a.jpg", DISC.shape)
    save_palette_mask(tmp_path / "a.png", NEARLY["VOC"])
    assert np.array_equal(read_supports(tmp_path).masks[0], DISC)
    assert np.array_equal(read_supports(tmp_path, object_number=255).masks[0], BORDER)


def test_what_may_be_object_or_void_is_asked_for(tmp_path):
    write_image(tmp_path / "a.jpg")
    Image.fromarray(box(2, 14) * np.uint8(1) + box(16, 28) * np.uint8(255)).save(tmp_path / "a.png")
    assert "is 255 the object, and 1 its soft edge, or is it void" in refused(tmp_path)
    assert np.array_equal(read_supports(tmp_path, object_number=1).masks[0], box(2, 14))
    core = cv2.erode(DISC.astype(np.uint8), np.ones((9, 9)))
    for mask, words in ((core * 255 + np.where(core, 0, (DISC | BORDER) * 128), "is 255 the object, and 128"),
                        (np.where(DISC, 255, 128), "no pixel is 0"), (np.where(DISC, 1, 2), "no pixel is 0")):
        write_image(tmp_path / "a.jpg", DISC.shape)
        Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "a.png")
        assert words in refused(tmp_path)


def test_masks_of_python_may_be_soft():
    picture = np.zeros((*DISC.shape, 3), np.uint8)
    shades = soft(DISC, 9)
    for mask in (DISC, DISC * 7, DISC * 7.0, shades, shades / 255, torch.from_numpy(shades / 255).float()):
        found = as_mask(mask, picture, "dog")
        assert (found & DISC).sum() / (found | DISC).sum() > 0.93
    for mask in (soft(DISC, 9) * 0.7, -DISC.astype(int), np.where(DISC, np.nan, 0), DISC.astype(object)):
        with pytest.raises(ValueError, match="dog: its mask has values from .* expected bool"):
            as_mask(mask, picture, "dog")
    with pytest.raises(ValueError, match="its mask is empty"):
        as_mask(np.full(DISC.shape, 0.4), picture, "dog")


KINDS = ("png", "labelme", "coco")


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("drawn_on", ["stored", "seen"])
@pytest.mark.parametrize("kind", KINDS)
def test_masks_follow_a_photograph_that_its_camera_turned(tmp_path, caplog, kind, drawn_on, orientation, square):
    """A red box in a grey picture: red must lie under the mask, or somebody is warned."""
    size = (40, 40) if square else SIZE
    seen = box(size=size)
    exif, picture = Image.Exif(), Image.fromarray(np.where(seen[..., None], (220, 20, 20), 90).astype(np.uint8))
    exif[0x0112] = orientation
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)    # from what is seen to what is stored
    stored = picture if turn is None else picture.transpose(Image.Transpose(turn))
    stored.save(tmp_path / "a.jpg", quality=95, exif=exif)
    mask = np.asarray(stored if drawn_on == "stored" else picture)[..., 0] > 150
    y, x = (n.tolist() for n in np.nonzero(mask))
    left, top, right, bottom = min(x), min(y), max(x) + 1, max(y) + 1
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    if kind == "png":
        Image.fromarray(mask).save(tmp_path / "a.png")
    elif kind == "labelme":
        content = {"imageHeight": mask.shape[0], "imageWidth": mask.shape[1], "shapes": [shape("x", corners)]}
        (tmp_path / "a.json").write_text(json.dumps(content))
    else:
        record = {"id": 1, "file_name": "a.jpg", "height": mask.shape[0], "width": mask.shape[1]}
        (tmp_path / "all.json").write_text(json.dumps({
            "images": [record], "categories": [{"id": 1, "name": "x"}],
            "annotations": [{"image_id": 1, "category_id": 1, "segmentation": [np.ravel(corners).tolist()]}]}))
    found = read_supports(tmp_path)
    assert found.images[0].shape[:2] == found.masks[0].shape == size    # upright, as people see it
    told = orientation in (2, 3, 4) or square and orientation > 1       # where sizes do not tell
    assert ("turned by its EXIF data" in caplog.text) == told
    usual = drawn_on == ("stored" if kind == "coco" else "seen")
    if usual or not told:
        assert np.array_equal(found.masks[0], seen)


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
        "broken": (lambda f: (write_image(f / "a.jpg"), (f / "a.png").write_bytes(b"\x89PNG")), r"a\.png is no JPEG")}
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
             (shape("x", CORNERS, "rectangle"), box(), 0), (shape("x", CORNERS, "rotation"), box(), 0),
             (shape("x", [CORNERS[n] for n in (0, 1, 3, 2)], "rectangle"), box(), 0),
             (shape("x", CORNERS, "quadrilateral"), box(), 0),
             (shape("x", [[3, 2], [36, 26], [3, 26]]), triangle, 60),
             (shape("x", [[20, 15], [29, 15]], "circle"), np.hypot(rows - 15, cols - 20) < 9, 60),
             (shape("x", [[8, 5], [30, 20]], "mask", mask=png_in_base64(np.ones((15, 22), bool))), box(), 0),
             (shape("x", [[8, 5], [30, 20]], "mask", mask=png_in_base64(np.pad(np.full((15, 22), 90, np.uint8), 1)
                                                                         )), np.roll(box(), (1, 1), (0, 1)), 0),
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
        if not {"/", "\\"} & set(record["file_name"]):
            write_image(folder / "images" / record["file_name"])
    content = {"images": images, "categories": [{"id": n, "name": name} for n, name in categories],
               "annotations": [{"id": n, "iscrowd": 0, **record} for n, record in enumerate(annotations)]}
    folder.mkdir(exist_ok=True)
    (folder / "labels.json").write_text(json.dumps(content))


def test_coco_gives_polygons_and_run_lengths_of_one_category_together(tmp_path):
    polygon = [[float(n) for corner in CORNERS for n in corner]]
    coco(tmp_path, [{"image_id": 1, "category_id": 1, "segmentation": polygon},
                    {"image_id": 1, "category_id": 1, "segmentation": rle_of(box(22, 28, 0, 5)), "iscrowd": 1},
                    {"image_id": 3, "category_id": 1, "segmentation": run_lengths(box())},
                    {"image_id": 2, "category_id": 2, "segmentation": polygon}])
    found = read_supports(tmp_path, category="dog")
    assert [name.rsplit("/", 1)[1] for name in found.names] == ["i1.jpg", "i3.jpg"]
    assert np.array_equal(found.masks[0], box() | box(22, 28, 0, 5)) and np.array_equal(found.masks[1], box())
    assert "2 labels: dog, cat" in refused(tmp_path)
    assert "labels.json has only dog, cat" in refused(tmp_path, category="cow")
    coco(tmp_path, [{"image_id": 1, "category_id": 2, "segmentation": polygon}])
    assert len(read_supports(tmp_path).masks) == 1                # one category is annotated: no need to name it


def test_categories_of_one_name_are_one(tmp_path):
    """As exports that were merged give them; ids may be text."""
    polygons = [[[x, 5, x + 6, 5, x + 6, 20, x, 20]] for x in (8, 24)]
    coco(tmp_path, [{"image_id": 1, "category_id": n, "segmentation": polygon}
                    for n, polygon in zip(("1", "2"), polygons, strict=True)], categories=(("1", "dog"), ("2", "dog")))
    assert np.array_equal(read_supports(tmp_path).masks[0], box(5, 20, 8, 14) | box(5, 20, 24, 30))


@pytest.mark.parametrize("ids", [(1, "1"), ("1", 1), (1.0, 1), ("a", "a")])
def test_an_id_is_the_same_as_number_and_as_text(tmp_path, ids):
    record = {"id": ids[0], "file_name": "i1.jpg", "height": SIZE[0], "width": SIZE[1]}
    polygon = [[8, 5, 30, 5, 30, 20, 8, 20]]
    coco(tmp_path, [{"image_id": ids[1], "category_id": ids[0], "segmentation": polygon}], [record],
         categories=((ids[1], "dog"),))
    assert np.array_equal(read_supports(tmp_path).masks[0], box())
    coco(tmp_path, [], [record, {**record, "id": ids[1], "file_name": "i2.jpg"}])
    assert "two entries of the image list have the id" in refused(tmp_path)
    coco(tmp_path, [], [record], categories=((ids[0], "dog"), (ids[1], "cat")))
    assert "two entries of the category list have the id" in refused(tmp_path)


@pytest.mark.parametrize(("name", "lies"), [
    ("train/i1.jpg", "i1.jpg"), ("C:\\data\\i1.jpg", "i1.jpg"), ("I1.JPG", "images/i1.jpg"),
    ("caf\u00e9.jpg", "cafe\u0301.jpg"), ("images/i1.jpg", "i1.jpg")])
def test_an_image_is_found_by_the_last_part_of_its_name(tmp_path, name, lies):
    polygon = [[8, 5, 30, 5, 30, 20, 8, 20]]
    record = {"id": 1, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
    content = {"images": [record], "categories": [{"id": 1, "name": "dog"}],
               "annotations": [{"image_id": 1, "category_id": 1, "segmentation": polygon}]}
    (write_image(tmp_path / lies).parent / "other.jpg").write_bytes(b"no image")
    (tmp_path / "all.json").write_text(json.dumps(content))
    assert read_supports(tmp_path).names == [str(tmp_path / lies)]
    content["images"].append({**record, "id": 2, "file_name": f"another/{name}"})
    (tmp_path / "all.json").write_text(json.dumps(content))              # of two of one name nobody knows which it is
    assert "no such image" in refused(tmp_path, FileNotFoundError)


def test_an_accent_may_be_part_of_its_letter_or_not(tmp_path):
    write_image(tmp_path / "caf\u00e9.jpg")
    Image.fromarray(MASKS["binary"]).save(tmp_path / "cafe\u0301.png")
    assert np.array_equal(read_supports(tmp_path).masks[0], box())


def test_boxes_without_a_mask_are_left_out_with_a_word(tmp_path, caplog):
    polygon = [[8, 5, 30, 5, 30, 20, 8, 20]]
    boxes = [{"image_id": n, "category_id": 1, **more} for n, more in (
        (1, {"segmentation": []}), (2, {}), (2, {"segmentation": None}), (2, {"segmentation": [[]]}))]
    coco(tmp_path, [*boxes, {"image_id": 1, "category_id": 1, "segmentation": polygon}])
    found = read_supports(tmp_path)
    assert len(found.masks) == 1 and np.array_equal(found.masks[0], box())
    assert "4 objects are boxes without a mask (annotation 0 and so on)" in caplog.text
    coco(tmp_path, boxes)
    assert "annotation 0 is a box without a mask, as are all" in refused(tmp_path)


def test_files_that_come_from_windows_are_read(tmp_path):
    """Backslashes in file names, and a mark at the beginning of the file."""
    corners = [[8, 5, 30, 5, 30, 20, 8, 20]]
    write_image(tmp_path / "a" / "sub" / "i1.jpg")
    coco(tmp_path / "a", [{"image_id": 1, "category_id": 1, "segmentation": corners}],
         [{"id": 1, "file_name": "sub\\i1.jpg", "height": SIZE[0], "width": SIZE[1]}])
    labelme(tmp_path / "b", "i1", [shape("dog", CORNERS)])
    for name in ("a/labels.json", "b/i1.json"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (tmp_path / name).read_bytes())
        assert np.array_equal(read_supports((tmp_path / name).parent).masks[0], box())
        (tmp_path / name).write_text((tmp_path / name).read_text(encoding="utf-8-sig"), encoding="utf-16")
        assert np.array_equal(read_supports((tmp_path / name).parent).masks[0], box())


@pytest.mark.parametrize("name", ["dog.jpg", "dog.webp"])
def test_another_kind_of_picture_is_named(tmp_path, name):
    Image.fromarray(MASKS["binary"]).save(tmp_path / name, "WEBP")
    Image.fromarray(MASKS["binary"]).save(tmp_path / "dog.png")
    said = refused(tmp_path)
    assert f"{name} is WebP" in said and "Save it as one of them" in said


def test_absurd_annotations_are_refused(tmp_path):
    """Files from anybody: names that lead out, absurd sizes and outlines, what is no number, no file and no JSON."""
    def image(name="i1.jpg", size=SIZE):
        return [{"id": 1, "file_name": name, "height": size[0], "width": size[1]}]

    def annotation(segmentation):
        return [{"image_id": 1, "category_id": 1, "segmentation": segmentation}]
    good = [[8.0, 5.0, 30.0, 5.0, 30.0, 20.0]]
    cases = [
        (lambda f: coco(f, annotation(good), image("../../secret.jpg")), "is not a name below the images"),
        (lambda f: coco(f, annotation(good), image("sub/none.jpg")), "no such image"),
        (lambda f: coco(f, annotation(good), image(size=(60_000, 60_000))), "more than 33554432 pixels"),
        (lambda f: coco(f, annotation([[0, 0, 40, 30] * 20_000])), "outlines of more than"),
        (lambda f: coco(f, annotation({"size": [3, 3], "counts": [9]})), "RLE of size (3, 3)"),
        (lambda f: coco(f, annotation({"size": list(SIZE), "counts": "\u00ff"})), "RLE"),
        (lambda f: coco(f, annotation("text")), "annotation 0: it is text, expected"),
        (lambda f: coco(f, [{"image_id": 9, "category_id": 1}]), "no image has the id 9"),
        (lambda f: coco(f, []), "no annotation"),
        (lambda f: labelme(f, "a", []), "nothing is annotated"),
        (lambda f: labelme(f, "a", [shape("x", "points")]), "shapes[0].points is text"),
        (lambda f: labelme(f, "a", [shape("x", CORNERS, "mask", mask="????")]), "no PNG in base64"),
        (lambda f: labelme(f, "a", [{"points": CORNERS}]), "shapes[0] has no 'label'"),
        (lambda f: (write_image(f / "a.jpg"), (f / "a.json").write_text("[1, 2]")), "expected an object"),
        (lambda f: (write_image(f / "a.jpg"), (f / "a.json").write_text('{"a": 1}')), "neither LabelMe")]
    for number, (make, reason) in enumerate(cases):
        make(tmp_path / str(number))
        assert reason in refused(tmp_path / str(number), (ValueError, FileNotFoundError)), number


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    secret = write_image(tmp_path / "secret" / "i1.jpg")
    coco(tmp_path / "supports", [{"image_id": 1, "category_id": 1, "segmentation": [[8.0, 5, 30, 5, 30, 20]]}])
    (tmp_path / "supports" / "i1.jpg").symlink_to(secret)
    assert "leads out of the folder" in refused(tmp_path / "supports")


def test_a_picture_that_is_a_broken_link_or_a_pipe_is_named_and_not_passed_over(tmp_path):
    for make in (lambda path: path.symlink_to("nowhere.jpg"), os.mkfifo):
        make(tmp_path / "b.jpg")
        with pytest.raises(ValueError, match="b.jpg: a link that leads nowhere, or no regular file"):
            pictures_in(tmp_path)
        (tmp_path / "b.jpg").unlink()
    assert pictures_in(tmp_path) == ([], [])
