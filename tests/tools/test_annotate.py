"""tools/annotate.py: masks from clicks and strokes, the folder they are kept in, and the page in a real browser."""
import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dataloaders.own.supports import read_supports
from models import get_method
from tools import annotate
from tools.annotation.frames import ImageFolder, VideoFrames, open_source, safe_stem
from tools.annotation.masks import (
    VIEW_SIDE,
    Sketch,
    editor_value,
    load_mask,
    picture,
    polygon_mask,
    remove_support,
    save_support,
    saved_names,
    strokes_mask,
    view_size,
)
from tools.annotation.run import Job, Run, film_of, film_pictures, next_folder, shown_command
from utils.checkpoint import save_checkpoint
from utils.config import load_config, to_dict
from utils.pictures.film import Film

ROOT = Path(__file__).resolve().parents[2]


def find_browser():
    """(browser, its driver), paths; None where one is missing"""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    return (program, driver) if program and driver else None


def image_of(size=(37, 53), seed=0):
    """(H, W, 3) uint8, smooth, so that JPEG keeps it nearly"""
    rough = np.random.default_rng(seed).integers(0, 255, (4, 4, 3)).astype(np.uint8)
    return cv2.resize(rough, size[::-1], interpolation=cv2.INTER_LINEAR)


def box_mask(size, rows, cols):
    mask = np.zeros(size, bool)
    mask[slice(*rows), slice(*cols)] = True
    return mask


def layer_of(alpha):
    """(H, W) opacities 0 to 255  ->  a layer of an image editor"""
    return np.dstack([np.full((*alpha.shape, 3), 200, np.uint8), alpha.astype(np.uint8)])


# -- polygons -------------------------------------------------------------------------------------------------------

def encloses(points, x, y):
    """Even-odd rule: how often a ray to the right crosses the polygon."""
    inside = False
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            inside = not inside
    return inside


def rim_distance(points, x, y):
    near = []
    for start, end in zip(np.array(points, float), np.array([*points[1:], points[0]], float), strict=True):
        way = end - start
        along = np.clip(np.dot([x, y] - start, way) / max(np.dot(way, way), 1e-9), 0, 1)
        near.append(np.hypot(*(start + along * way - [x, y])))
    return min(near)


@pytest.mark.parametrize("seed", range(4))
def test_polygon_is_filled_as_the_even_odd_rule_says(seed):
    points = np.random.default_rng(seed).integers(1, (39, 29), (7, 2)).tolist()       # crosses itself
    mask = polygon_mask(points, (30, 40))
    for y in range(30):
        for x in range(40):
            if rim_distance(points, x, y) > 1:
                assert mask[y, x] == encloses(points, x, y)


def test_polygon_includes_its_corners_and_ends_at_the_image():
    assert polygon_mask([(2, 3), (6, 3), (6, 8), (2, 8)], (10, 12)).nonzero()[0].tolist() == [
        row for row in range(3, 9) for _ in range(5)]
    assert polygon_mask([(-50, -50), (90, -50), (90, 90), (-50, 90)], (10, 12)).all()


@pytest.mark.parametrize("points", [[], [(1, 1), (2, 2)], [(1, 1), (2, float("nan")), (3, 3)]])
def test_polygon_without_sense_is_refused(points):
    with pytest.raises(ValueError, match="polygon"):
        polygon_mask(points, (10, 10))


# -- the brush ------------------------------------------------------------------------------------------------------

def test_strokes_count_without_their_soft_rim():
    alpha = np.array([[0, 20, 63, 64, 127, 255]])
    assert strokes_mask([layer_of(alpha)], (1, 6)).tolist() == [[False, False, False, True, True, True]]


def test_layers_are_joined_and_brought_to_the_size():
    left, right = np.zeros((4, 6)), np.zeros((4, 6))
    left[:, 0], right[:, 5] = 128, 128
    assert np.array_equal(strokes_mask([layer_of(left), None, layer_of(right)], (8, 12)),
                          box_mask((8, 12), (0, 8), (0, 2)) | box_mask((8, 12), (0, 8), (10, 12)))


def test_layer_without_transparency_is_refused():
    with pytest.raises(ValueError, match="alpha"):
        strokes_mask([np.zeros((4, 6, 3), np.uint8)], (4, 6))


def test_editor_gives_back_the_mask_it_was_given():
    for size in ((37, 53), (1001, 3003)):
        sketch = Sketch(box_mask(size, (3, 20), (5, 31)))
        value, before = editor_value(image_of(size), sketch), sketch.mask
        assert value["background"].shape[:2] == value["layers"][0].shape[:2] == view_size(size)
        sketch.brush(value["layers"])
        assert np.array_equal(sketch.mask, before) and not sketch.touched


def test_brush_changes_a_large_mask_only_where_it_painted():
    size = (1000, 2 * VIEW_SIDE)
    erased, painted = box_mask(size, (600, 620), (400, 440)), box_mask(size, (200, 220), (400, 440))
    fine = (np.indices(size).sum(0) % 2 == 0) & ~painted | erased    # chessboard: finer than the page shows
    sketch = Sketch(fine)
    layer = editor_value(image_of(size), sketch)["layers"][0]
    layer[100:110, 200:220] = (200, 0, 0, 128)
    layer[300:310, 200:220] = 0
    sketch.brush([layer])
    assert np.array_equal(sketch.mask, fine & ~erased | painted)


# -- the sketch of a frame ------------------------------------------------------------------------------------------

def clicked(sketch, corners):
    for corner in corners:
        sketch.click(*corner)
    return sketch


def test_fill_cut_out_undo_and_clear():
    sketch = clicked(Sketch(np.zeros((20, 30), bool)), [(2, 2), (20, 2), (20, 15), (2, 15)])
    sketch.fill()
    outer = box_mask((20, 30), (2, 16), (2, 21))
    assert np.array_equal(sketch.mask, outer) and not sketch.points
    clicked(sketch, [(5, 5), (9, 5), (9, 9), (5, 9)]).fill(add=False)
    assert np.array_equal(sketch.mask, outer & ~box_mask((20, 30), (5, 10), (5, 10)))
    clicked(sketch, [(1, 1)]).undo()
    assert not sketch.points and sketch.mask.sum() == outer.sum() - 25
    sketch.undo()
    assert np.array_equal(sketch.mask, outer)
    sketch.clear()
    assert not sketch.mask.any()
    sketch.undo()
    assert np.array_equal(sketch.mask, outer)
    for _ in range(5):
        sketch.undo()
    assert not sketch.mask.any() and not sketch.touched


def test_too_few_corners_leave_mask_and_corners():
    sketch = clicked(Sketch(box_mask((20, 30), (1, 4), (1, 4))), [(5, 5), (9, 9)])
    with pytest.raises(ValueError, match="3 to"):
        sketch.fill()
    assert len(sketch.points) == 2 and sketch.mask.sum() == 9


def test_click_in_the_smaller_picture_is_a_place_of_the_image():
    sketch = Sketch(np.zeros((3 * 500, 3 * VIEW_SIDE), bool))
    clicked(sketch, [(0, 0), (VIEW_SIDE - 1, 499)])
    assert sketch.points == [(1, 1), (3 * VIEW_SIDE - 2, 3 * 500 - 2)]       # centres of blocks of 3 x 3


def test_picture_shows_mask_and_open_polygon():
    sketch = clicked(Sketch(box_mask((60, 80), (0, 20), (0, 30))), [(40, 40), (60, 40)])
    shown = picture(np.zeros((60, 80, 3), np.uint8), sketch)
    assert shown[10, 10, 0] > 80 and shown[10, 10, 1:].max() < 40            # red
    assert shown[40, 50].min() > 200 and not shown[55, 70].any()             # white line, black ground


# -- the support folder ---------------------------------------------------------------------------------------------

def test_what_is_saved_is_what_segment_reads(tmp_path):
    image, mask = image_of((37, 53)), box_mask((37, 53), (5, 20), (7, 50))
    paths = save_support(tmp_path / "support", "dog", image, mask)
    assert [p.name for p in paths] == ["dog.jpg", "dog.png"] and len(list((tmp_path / "support").iterdir())) == 2
    supports = read_supports(tmp_path / "support")
    assert np.array_equal(supports.masks[0], mask)
    assert supports.images[0].shape == image.shape and np.abs(supports.images[0].astype(int) - image).mean() < 2
    assert np.array_equal(load_mask(tmp_path / "support", "dog", (37, 53)), mask)


def test_saved_again_replaces_and_removed_is_gone(tmp_path):
    for rows in ((0, 5), (10, 12)):
        save_support(tmp_path, "dog", image_of(), box_mask((37, 53), rows, (0, 10)))
    assert load_mask(tmp_path, "dog", (37, 53)).sum() == 20 and saved_names(tmp_path) == ["dog"]
    with pytest.raises(ValueError, match="no such support"):
        remove_support(tmp_path, "../dog")
    remove_support(tmp_path, "dog")
    assert not list(tmp_path.iterdir()) and not load_mask(tmp_path, "dog", (37, 53)).any()


def test_empty_mask_and_other_size_write_nothing(tmp_path):
    with pytest.raises(ValueError, match="nothing is marked"):
        save_support(tmp_path, "dog", image_of(), np.zeros((37, 53), bool))
    with pytest.raises(ValueError, match="mask of"):
        save_support(tmp_path, "dog", image_of(), np.ones((53, 37), bool))
    assert not list(tmp_path.iterdir())


def test_mask_of_another_image_is_refused(tmp_path):
    save_support(tmp_path, "dog", image_of(), np.ones((37, 53), bool))
    with pytest.raises(ValueError, match="another --output"):
        load_mask(tmp_path, "dog", (20, 20))


@pytest.mark.parametrize("text, stem", [
    ("dog", "dog"), ("../../etc/passwd", "_.._etc_passwd"), ("a b\0c", "a_b_c"), ("..", "image"), ("", "image"),
    ("dog_mask", "dog_mask_"), ("Übung", "_bung"), ("x" * 300, "x" * 80), (".hidden", "hidden"), ("C:\\x", "C__x")])
def test_names_stay_in_their_folder(tmp_path, text, stem):
    assert safe_stem(text) == stem
    path, _ = save_support(tmp_path, stem, image_of(), np.ones((37, 53), bool))
    assert path.parent == tmp_path and len(read_supports(tmp_path).images) == 1


# -- images and videos ----------------------------------------------------------------------------------------------

def test_folder_lists_images_and_not_their_masks(tmp_path):
    for name in ("b2.jpg", "b10.jpg", "b2.png", "c.png", "c_mask.png", "B2.JPEG", ".x.jpg", "notes.txt"):
        Image.fromarray(image_of()).save(tmp_path / name, "PNG" if name.endswith(".png") else "JPEG")
    folder = ImageFolder(tmp_path)
    assert sorted(f.name for f in folder.files) == ["B2.JPEG", "b10.jpg", "b2.jpg", "c.png"]
    assert len({folder.name(i).casefold() for i in range(len(folder))}) == 4
    assert folder.files[-1].name == "c.png" and np.array_equal(folder.read(3), image_of()) and folder.jpeg(3) is None


def test_upright_jpeg_is_copied_and_a_turned_one_is_turned(tmp_path):
    stored = Image.fromarray(image_of((40, 64)))
    stored.save(tmp_path / "plain.jpg", quality=95)
    turned = stored.getexif()
    turned[0x0112] = 6                                          # shown turned by a quarter
    stored.save(tmp_path / "turned.jpg", quality=95, exif=turned)
    folder = ImageFolder(tmp_path)
    assert folder.jpeg(0) == (tmp_path / "plain.jpg").read_bytes()
    assert folder.read(1).shape == (64, 40, 3) and folder.jpeg(1) is None
    save_support(tmp_path / "out", "turned", folder.read(1), np.ones((64, 40), bool), folder.jpeg(1))
    assert read_supports(tmp_path / "out").images[0].shape == (64, 40, 3)


def test_frames_of_a_video_are_those_read_in_order(tmp_path):
    with Film(tmp_path / "my clip") as film:
        for seed in range(12):
            film.add(image_of((48, 64), seed)[None])
    if film.path.suffix == ".gif":
        pytest.skip("OpenCV has no video encoder here")
    source, reader = open_source(film.path), cv2.VideoCapture(str(film.path))
    in_order = [reader.read()[1][..., ::-1] for _ in range(12)]
    assert isinstance(source, VideoFrames) and len(source) == 12 and source.name(7) == "my_clip_00007"
    for number in (7, 0, 11, 3):
        assert np.array_equal(source.read(number), in_order[number])
    with pytest.raises(ValueError, match="frame 99 of 12"):
        source.read(99)


def test_wrong_images_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing at"):
        open_source(tmp_path / "none")
    with pytest.raises(ValueError, match="no JPEG or PNG"):
        open_source(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(ValueError, match=r"broken\.jpg cannot be read"):
        open_source(tmp_path).read(0)
    with pytest.raises(ValueError, match="folder it lies in"):
        open_source(tmp_path / "broken.jpg")
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    with pytest.raises(ValueError, match="no video that OpenCV reads"):
        open_source(tmp_path / "broken.mp4")


# -- running segment.py ---------------------------------------------------------------------------------------------

def test_job_says_what_it_lacks_and_passes_options_on():
    with pytest.raises(ValueError, match="--checkpoint FILE was not given"):
        Job(Path("clip.mp4"), None).command("support", "out")
    command = Job(Path("my clip.mp4"), Path("a.pth"), ("--every", "5")).command("support", "out")
    assert shown_command(command) == ("python segment.py --support support --video 'my clip.mp4' --checkpoint a.pth "
                                      "--output out --every 5")
    assert Path(command[1]).is_file()


def test_no_result_is_written_over(tmp_path):
    taken = []
    for _ in range(3):
        taken.append(next_folder(tmp_path / "result"))
        taken[-1].mkdir()
    assert [f.name for f in taken] == ["result", "result_2", "result_3"]


def test_run_is_watched_and_stopped(tmp_path):
    code = ("import sys, time; open(sys.argv[1] + '/frames.csv', 'w').write('frame\\n0\\n1\\n'); "
            "print('one\\rtwo\\nready', flush=True); time.sleep(600)")
    run = Run([sys.executable, "-c", code, str(tmp_path / "out")], tmp_path / "out")
    try:
        while "ready" not in run.last_lines() and run.running:
            time.sleep(0.02)
        assert run.running and run.last_lines().splitlines() == ["two", "ready"] and run.frames() == 2
    finally:
        run.stop()
    assert not run.running and not run.succeeded


@pytest.mark.parametrize("suffix", [".gif", "video"])
def test_pictures_of_a_film_span_it(tmp_path, suffix):
    grey = [np.full((48, 64, 3), 20 * t, np.uint8) for t in range(11)]
    if suffix == ".gif":
        path = tmp_path / "overlay.gif"
        Image.fromarray(grey[0]).save(path, save_all=True, append_images=[Image.fromarray(g) for g in grey[1:]])
    else:
        with Film(tmp_path / "overlay") as film:
            film.add(np.stack(grey))
        path = film.path
    assert film_of(tmp_path) == path
    pictures = film_pictures(path, most=3)
    assert [number for number, _ in pictures] == [0, 5, 10]
    assert all(abs(float(image.mean()) - 20 * number) < 6 for number, image in pictures)


# -- the command ----------------------------------------------------------------------------------------------------

def test_what_follows_the_dashes_is_for_segment(tmp_path):
    args = annotate.parse_arguments([str(tmp_path), "--port", "8000", "--", "--every", "5", "memory.min_iou=0.5"])
    assert args.options == ("--every", "5", "memory.min_iou=0.5") and args.port == 8000
    with pytest.raises(FileNotFoundError, match="--checkpoint"):
        annotate.parse_arguments([str(tmp_path), "--checkpoint", str(tmp_path / "none.pth")])
    with pytest.raises(ValueError, match="--port 0"):
        annotate.parse_arguments([str(tmp_path), "--port", "0"])


def test_without_gradio_the_command_says_what_to_install(tmp_path, monkeypatch):
    Image.fromarray(image_of()).save(tmp_path / "a.jpg")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -r requirements-annotate\.txt"):
        annotate.main([str(tmp_path)])


# -- the page, in a browser -----------------------------------------------------------------------------------------

TINY = ["data.size=[48, 80]", "data.shots=2", "data.clip_length=3", "backbone.width=8", "model.dim=16",
        "model.layers=2", "model.heads=2", "model.ffn_dim=16", "iou_net.dim=4", "iou_net.hidden=8"]
PATIENCE = 90                # seconds for anything to appear; nothing is measured
needs_browser = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("gradio", "selenium")) or not find_browser(),
    reason="needs gradio and selenium (requirements-annotate.txt), Chrome or Chromium, and chromedriver")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of three images of odd sizes: small, tall, and larger than the page shows."""
    folder = tmp_path_factory.mktemp("annotate") / "photos"
    folder.mkdir()
    for number, size in enumerate([(61, 97), (200, 83), (901, VIEW_SIDE + 323)]):
        Image.fromarray(image_of(size, number)).save(folder / f"{number}.jpg", quality=95)
    return folder


@pytest.fixture(scope="module")
def address(photos):
    """The command as a user starts it, until the tests of the page are over  ->  the page's address"""
    torch.manual_seed(0)
    cfg = load_config(["config/demo/ytvis.yaml"], TINY)
    model = get_method(cfg.model.method).build(cfg)
    root = photos.parent
    save_checkpoint(root / "last.pth", {"model": model.state_dict(), "config": to_dict(cfg), "fold": 1})
    with Film(root / "clip") as film:
        film.add(np.stack([image_of((48, 80), seed) for seed in range(4)]))
    command = [sys.executable, "tools/annotate.py", photos, "--video", film.path, "--checkpoint", root / "last.pth",
               "--output", root / "out", "--", "--device", "cpu"]
    process = subprocess.Popen([str(word) for word in command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        first = process.stdout.readline()
        assert re.match(r"Open http://127\.0\.0\.1:\d+/ in a browser", first), first
        yield first.split()[1]
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0 and "what was saved stays" in said


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver
    options, (program, driver) = webdriver.ChromeOptions(), find_browser()
    options.binary_location = program
    for word in ("--headless=new", "--no-sandbox", "--no-first-run", "--disable-background-networking",
                 "--disable-component-update", "--disable-sync", "--window-size=1300,1600",
                 "--enable-unsafe-swiftshader", f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield window
    window.quit()


@pytest.fixture
def page(browser, address):
    browser.get(address)
    page = PageInBrowser(browser)
    page.wait("97 x 61 pixels")
    return page


class PageInBrowser:
    """What a person does in the page, and what they see."""

    def __init__(self, browser):
        self.browser = browser

    def find(self, css):
        return self.until(lambda: next((e for e in self.browser.find_elements("css selector", css)
                                        if e.is_displayed()), None), css)

    def until(self, look, what):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                if found := look():
                    return found
            except Exception as error:                       # the page replaces its elements while they are looked at
                if type(error).__name__ != "StaleElementReferenceException":
                    raise
            time.sleep(0.1)
        pytest.fail(f"the page never showed: {what}")

    def wait(self, text):
        return self.until(lambda: text in self.find("#status").text, text)

    def settled(self, css):
        """The element once the page has stopped moving it: a click that is aimed before that lands beside it."""
        def look():
            before = self.find(css).rect
            time.sleep(0.5)
            element = self.find(css)
            return element if element.rect == before else None
        return self.until(look, f"{css} at rest")

    def press(self, name):
        self.find(f"#{name}").click()

    def go(self, number, then):
        box = self.find("#frame input[type=number]")
        box.click()
        box.send_keys("\ue003" * 6, f"{number}\ue004")       # backspaces, number, tab
        self.wait(then)

    def choose_tool(self, name, then):
        next(e for e in self.browser.find_elements("css selector", "#tool label") if e.text == name).click()
        return self.find(then)

    def click_corners(self, size, corners):
        """corners (x, y) in pixels of the image (H, W), which the page fits into the picture's box"""
        for count, (x, y) in enumerate(corners, 1):
            box = self.settled("#picture img")
            scale = min(box.size["width"] / size[1], box.size["height"] / size[0], 1)
            away = [round((place + 0.5 - length / 2) * scale) for place, length in ((x, size[1]), (y, size[0]))]
            self.mouse().move_to_element_with_offset(box, *away).click().perform()
            self.wait(f"{count} corners")

    def mouse(self):
        from selenium.webdriver import ActionChains
        return ActionChains(self.browser)


@needs_browser
@pytest.mark.parametrize("number, size", [(0, (61, 97)), (1, (200, 83)), (2, (901, VIEW_SIDE + 323))])
def test_clicked_polygon_is_saved_at_the_size_of_its_image(page, photos, number, size):
    rows, cols = [[round(share * n) for share in (0.25, 0.75)] for n in size]
    if number:
        page.go(number, f"{size[1]} x {size[0]} pixels")
    page.click_corners(size, [(cols[0], rows[0]), (cols[1], rows[0]), (cols[1], rows[1]), (cols[0], rows[1])])
    page.press("fill")
    page.until(lambda: "corners" not in page.find("#status").text, "the filled polygon")
    page.press("save")
    page.wait(f"Saved as {number}.jpg")
    support = photos.parent / "out" / "support"
    assert (support / f"{number}.jpg").read_bytes() == (photos / f"{number}.jpg").read_bytes()
    mask = load_mask(support, str(number), size)
    expected = box_mask(size, (rows[0], rows[1] + 1), (cols[0], cols[1] + 1))
    off = max(1, round(2 * max(size) / 700))                 # the page shows about 700 pixels; a click hits one of them
    inner, outer = [cv2.morphologyEx(expected.astype(np.uint8), how, np.ones((2 * off + 1,) * 2)).astype(bool)
                    for how in (cv2.MORPH_ERODE, cv2.MORPH_DILATE)]
    assert (mask | ~inner).all() and not (mask & ~outer).any()


@needs_browser
def test_brush_marks_its_own_frame_only(page, photos):
    page.go(1, "83 x 200 pixels")
    page.press("clear")
    page.wait("0.0% marked")
    canvas = page.choose_tool("Brush", "#editor canvas")
    time.sleep(3)                                            # the editor draws its picture without saying when
    page.mouse().move_to_element_with_offset(canvas, 0, -40).click_and_hold().move_by_offset(0, 40).move_by_offset(
        0, 40).release().perform()
    time.sleep(1)
    page.press("save")
    page.wait("Saved as 1.jpg")
    mask = load_mask(photos.parent / "out" / "support", "1", (200, 83))
    middle = np.argwhere(mask).mean(0)
    assert mask[100, 41] and not mask[:60].any() and not mask[140:].any() and np.abs(middle - (99.5, 41)).max() < 4
    page.go(2, "1603 x 901 pixels")
    time.sleep(3)
    page.choose_tool("Polygon", "#picture img")
    page.go(1, "83 x 200 pixels")
    page.press("save")
    page.wait("Saved as 1.jpg")
    assert np.array_equal(load_mask(photos.parent / "out" / "support", "1", (200, 83)), mask)


@needs_browser
def test_saved_supports_are_segmented_and_the_film_is_seen(page, photos):
    page.press("segment")
    film = page.find("#film video")
    page.until(lambda: page.browser.execute_script("return arguments[0].readyState", film) >= 2, "a frame of the film")
    assert page.browser.execute_script("return [arguments[0].videoWidth, arguments[0].videoHeight]", film) == [80, 48]
    picture = page.find("#pictures img")
    page.until(lambda: page.browser.execute_script("return arguments[0].naturalWidth", picture) == 80, "a picture")
    assert "4 frames" in page.find("#log textarea").get_attribute("value")
    assert len(list((photos.parent / "out" / "result" / "masks").glob("*.png"))) == 4


@needs_browser
def test_mistakes_are_told_and_nothing_comes_from_elsewhere(page, address):
    page.go(0, "97 x 61 pixels")
    page.press("fill")
    assert "3 to" in page.find(".toast-body").text
    requests = [json.loads(line["message"])["message"] for line in page.browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in requests if m["method"] == "Network.requestWillBeSent"}
    own = (address, f"blob:{address}", "data:", "chrome")     # the browser's own pages are chrome:...
    assert any(url.startswith(address) for url in asked) and not [url for url in asked if not url.startswith(own)]
    foreign = urllib.request.Request(address, headers={"Host": "example.org"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(foreign)
