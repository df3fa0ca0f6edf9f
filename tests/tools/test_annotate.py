"""tools/annotate.py: masks from strokes, the folder they are kept in, and the page in a real browser."""
import http.client
import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
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
from tools.annotation.frames import ImageFolder, VideoFrames, open_source, stem_of
from tools.annotation.results import Result
from tools.annotation.run import Job, Run, next_folder, reads_sentences, shown_command
from tools.annotation.supports import (
    LEAST_SIDE,
    VIEW_SIDE,
    as_shown,
    editor_value,
    load_mask,
    outlined,
    painted,
    polygon,
    remove_support,
    save_sentence,
    save_support,
    saved_names,
)
from tools.annotation.work import FILM, Session, Work
from utils.checkpoint import save_checkpoint
from utils.config import load_config, to_dict
from utils.pictures.caption import caption
from utils.pictures.film import Film
from utils.pictures.overlay import save_palette_mask

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


# -- the brush ------------------------------------------------------------------------------------------------------

def test_strokes_count_without_their_soft_rim_and_layers_are_joined():
    alpha = np.array([[0, 20, 63, 64, 127, 255]])
    empty = np.zeros((1, 6), bool)
    alpha, empty = np.tile(alpha, (640, 1)), np.tile(empty, (640, 1))
    assert painted(empty, [layer_of(alpha)])[:1].tolist() == [[False, False, False, True, True, True]]
    assert painted(empty, [layer_of(alpha), None, layer_of(alpha[:, ::-1])]).all(axis=0).tolist() == [
        True, True, True, True, True, True]
    assert not painted(~empty, []).any()                                 # erased


def test_editor_gives_back_the_mask_it_was_given():
    for size in ((37, 53), (1001, 3003)):
        mask = box_mask(size, (3, 20), (5, 31))
        value = editor_value(image_of(size), mask)
        shown = as_shown(mask).shape
        assert value["background"].shape[:2] == value["layers"][0].shape[:2] == shown
        assert LEAST_SIDE <= max(shown) <= VIEW_SIDE and np.array_equal(painted(mask, value["layers"]), mask)


def test_brush_changes_a_large_mask_only_where_it_painted():
    size = (1000, 2 * VIEW_SIDE)
    erased, added = box_mask(size, (600, 620), (400, 440)), box_mask(size, (200, 220), (400, 440))
    fine = (np.indices(size).sum(0) % 2 == 0) & ~added | erased      # chessboard: finer than the page shows
    layer = editor_value(image_of(size), fine)["layers"][0]
    layer[100:110, 200:220] = (200, 0, 0, 128)
    layer[300:310, 200:220] = 0
    assert np.array_equal(painted(fine, [layer]), fine & ~erased | added)


# -- the support folder ---------------------------------------------------------------------------------------------

def test_what_is_saved_is_what_segment_reads(tmp_path):
    image, mask = image_of((37, 53)), box_mask((37, 53), (5, 20), (7, 50))
    save_support(tmp_path / "support", "dog", image, mask)
    assert sorted(p.name for p in (tmp_path / "support").iterdir()) == ["dog.jpg", "dog.png"]
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


def test_an_empty_mask_and_one_of_another_image_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing is marked"):
        save_support(tmp_path, "dog", image_of(), np.zeros((37, 53), bool))
    assert not list(tmp_path.iterdir())
    save_support(tmp_path, "dog", image_of(), np.ones((37, 53), bool))
    with pytest.raises(ValueError, match="another --output"):
        load_mask(tmp_path, "dog", (20, 20))


@pytest.mark.parametrize("text", ["dog", "../../etc/passwd", "a b\0c", "..", "", "dog_mask", "\u00dcbung", "x" * 300,
                                  ".hidden", "C:\\x"])
def test_names_stay_in_their_folder(tmp_path, text):
    save_support(tmp_path, stem_of(text), image_of(), np.ones((37, 53), bool))
    assert len(read_supports(tmp_path).images) == 1 and len(list(tmp_path.iterdir())) == 2


# -- images and videos ----------------------------------------------------------------------------------------------

def test_folder_lists_images_upright_and_not_their_masks(tmp_path):
    for name in ("b2.jpg", "b10.jpg", "b2.png", "c.png", "c_mask.png", ".x.jpg", "notes.txt"):
        Image.fromarray(image_of()).save(tmp_path / name, "PNG" if name.endswith(".png") else "JPEG")
    turned = Image.Exif()
    turned[0x0112] = 6                                          # shown turned by a quarter
    Image.fromarray(image_of((40, 64))).save(tmp_path / "d.jpg", exif=turned)
    folder = ImageFolder(tmp_path)
    assert [f.name for f in folder.files] == ["b2.jpg", "b10.jpg", "c.png", "d.jpg"] and folder.name(1) == "b10"
    assert np.array_equal(folder.read(2), image_of()) and folder.read(3).shape == (64, 40, 3) and folder.last == 3


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_frames_of_a_video_are_those_read_in_order(tmp_path, suffix):
    """At any place: two key frames apart, and in a container that says little of where its frames are."""
    frames = np.stack([image_of((48, 64), seed) for seed in range(40)])
    if suffix == ".mp4":
        with Film(tmp_path / "my clip", 10) as film:
            for frame in frames:
                film.add(frame[None])
    else:
        writer = cv2.VideoWriter(str(tmp_path / "my clip.avi"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
        for frame in frames:
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
        writer.release()
    source = open_source(tmp_path / f"my clip{suffix}")
    in_order = [frame.image for frame in source.video]
    assert isinstance(source, VideoFrames) and source.last == 39 and source.name(7) == "my clip_00007"
    for number in (7, 0, 39, 25, 3):
        assert np.array_equal(source.read(number), in_order[number])


def test_what_players_show_at_a_moment_of_a_slide_show(tmp_path):
    with Film(tmp_path / "slides", 1) as film:
        film.add(np.stack([np.full((48, 64, 3), 60 * t, np.uint8) for t in range(4)]), [0, 2, 4, 7])
    source = open_source(film.path)
    shown = [round(float(source.read(n).mean()) / 60) for n in range(source.last + 1)]
    moments = [n / source.video.fps for n in range(source.last + 1)]
    assert shown == [sum(m >= t - 1e-3 for t in (2, 4, 7)) for m in moments]


def test_wrong_images_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing at"):
        open_source(tmp_path / "none")
    with pytest.raises(ValueError, match="no JPEG or PNG"):
        open_source(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(ValueError, match=r"broken\.jpg is"):
        open_source(tmp_path).read(0)
    with pytest.raises(ValueError, match="folder that it lies in"):
        open_source(tmp_path / "broken.jpg")
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    with pytest.raises(ValueError, match="cannot be read as a film"):
        open_source(tmp_path / "broken.mp4")


# -- running segment.py ---------------------------------------------------------------------------------------------

def test_job_says_what_it_lacks_and_passes_options_on():
    with pytest.raises(ValueError, match="--checkpoint FILE was not given"):
        Job(Path("clip.mp4"), None).command("support", "out")
    command = Job(Path("my clip.mp4"), Path("a.pth"), ("--every", "5")).command("support", "out")
    assert shown_command(command) == ("python segment.py --support support --video 'my clip.mp4' --checkpoint a.pth "
                                      "--output out --every 5")
    assert Path(command[1]).is_file()


def test_sentences_are_kept_with_the_supports_and_passed_on(tmp_path):
    job = Job(Path("clip.mp4"), Path("a.pth"), ("--every", "5"), sentences=True)
    with pytest.raises(ValueError, match="write what to segment"):
        job.command(tmp_path, "out", " ")
    assert job.command(tmp_path, "out", "--the dog")[-3:] == ["--text=--the dog", "--every", "5"]
    save_support(tmp_path, "dog", image_of(), box_mask((37, 53), (5, 20), (7, 50)))
    with pytest.raises(ValueError, match="write what the supports show"):
        save_sentence(tmp_path, "  ")
    assert read_supports(tmp_path).text == ""
    save_sentence(tmp_path, "Ein großer\n Hund")
    assert read_supports(tmp_path).text == "Ein großer Hund" and saved_names(tmp_path) == ["dog"]
    (tmp_path / "sentence.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="Write one sentence"):
        read_supports(tmp_path)


def test_whether_a_checkpoint_reads_sentences_is_said_by_its_method(tmp_path):
    for name, method in (("a", "vipmt"), ("b", "tests.sentence_method")):
        config = to_dict(load_config([], [f"model.method={method}"]))
        save_checkpoint(tmp_path / name, {"model": {}, "config": config})
    save_checkpoint(tmp_path / "c", {"model": {}})
    assert [reads_sentences(tmp_path / name) for name in "abc"] == [False, True, False]


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


# -- the result, and its correction ---------------------------------------------------------------------------------

SIZE = (48, 80)


class Done(Work):
    """segment.py has run: a result as it leaves it, without its seconds"""

    def finish(self, output, rows, more=()):
        names = ["frame", "time", "predicted_iou", "remembered", "area", *more]
        for row in rows:
            save_palette_mask(output / "masks" / f"{row[0]:05d}.png", box_mask(SIZE, (0, 20), (0, row[4])))
        lines = [",".join(map(str, row)) for row in [names, *rows]]
        (output / "frames.csv").write_text("\n".join(lines) + "\n")
        self.before, self.result = self.result, Result(output)


@pytest.fixture
def work(tmp_path):
    with Film(tmp_path / "clip", 10) as film:
        film.add(np.stack([image_of(SIZE, seed) for seed in range(6)]))
    work = Done(open_source(film.path), tmp_path / "out", Job(film.path, tmp_path / "a.pth"))
    work.finish(tmp_path / "out" / "result", [(0, 0.0, 0.9, 1, 30), (2, 0.2, 0.4, 0, 30), (4, 0.4, 0.7, 0, 10)])
    return work


def test_frames_that_look_worst_come_first(work, tmp_path):
    assert work.result.worst() == [("frame 2: IoU 0.40", 2), ("frame 4: IoU 0.70", 4), ("frame 0: IoU 0.90", 0)]
    work.finish(tmp_path / "b", [(0, 0.0, "", 0, 30, ""), (1, 0.1, "", 0, 33, ""), (2, 0.2, "", 0, 11, ""),
                                 (3, 0.3, "", 0, 44, 1)], ["corrected"])
    assert [number for _, number in work.result.worst()] == [2, 1, 0, 3]       # where the area jumps; by hand: last
    assert work.result.worst()[0][0] == "frame 2: area -67%" and work.result.worst()[3][0] == "frame 3: by hand"
    assert work.result.changed(work.before, 5) == [2]                          # and frame 0 is the same


def test_a_corrected_frame_is_kept_beside_the_result_and_gone_on_from(work):
    session = Session()
    with pytest.raises(ValueError, match="choose one in step 3"):
        work.correct(session, None)
    _, editor, _, status, *_ = work.go(session, None, 4, FILM)
    assert "frame 4 of the film" in status and "8.7% marked" not in status and "5.2% marked" in status
    assert np.array_equal(editor["background"], as_shown(work.source.read(4)))
    for corner in ((80, 80), (560, 80), (560, 320), (80, 320), (1, 1)):       # 80 pixels are shown as 640
        work.corner(session, *corner)
    work.corner(session, None, None)
    work.close(session, True)
    work.correct(session, None)
    mask = work.result.mask(4)
    assert work.result.corrected == [4] and mask[10:40, 10:70].all() and mask[:20, :10].all()
    assert not work.result.found(4)[30:].any()
    command = work.job.command(work.support, "out", earlier=work.result.folder)
    assert command[-2:] == ["--continue", str(work.result.folder)]
    work.save(session, None)                                                   # and it may be a support as well
    assert saved_names(work.support) == ["clip_00004"] and work.progress() == "**1 of 5** supports saved."


def test_what_was_not_kept_is_there_again_but_not_in_another_result(work, tmp_path):
    session = Session()
    work.go(session, None, 2, FILM)
    work.close(clicked(work, session), True)
    drawn = work.frame(session)[1].copy()
    work.go(session, None, 0)
    work.go(session, None, 2, FILM)
    assert np.array_equal(work.frame(session)[1], drawn)
    work.finish(tmp_path / "b", [(2, 0.2, 0.4, 0, 5)])
    assert work.frame(session)[1].sum() == 100


def test_going_on_needs_supports_and_a_correction(work):
    with pytest.raises(ValueError, match="no support is saved"):
        next(work.segment(go_on=True))
    save_support(work.support, "a", image_of(SIZE), np.ones(SIZE, bool))
    with pytest.raises(ValueError, match="nothing is corrected"):
        next(work.segment(go_on=True))


def clicked(work, session):
    for corner in ((40, 200), (600, 200), (600, 360), (40, 360)):
        work.corner(session, *corner)
    return session


def test_a_polygon_is_drawn_at_the_size_of_its_picture():
    inside = polygon([(16, 16), (9 * 32 + 16, 16), (9 * 32 + 16, 4 * 32 + 16), (16, 4 * 32 + 16)], (10, 20))
    assert np.array_equal(inside, box_mask((10, 20), (0, 5), (0, 10)))
    right = VIEW_SIDE / 2 - 0.5
    large = polygon([(-0.5, -0.5), (right, -0.5), (right, 9.5), (-0.5, 9.5)], (40, 2 * VIEW_SIDE))
    assert abs(large.sum() / (VIEW_SIDE * 20) - 1) < 0.08 and large[5, 5] and not large[30, 5]
    with pytest.raises(ValueError, match="three corners"):
        polygon([(0, 0), (9, 0)], (10, 20))
    picture = np.full((40, 60, 3), 90, np.uint8)
    assert np.array_equal(outlined(picture.copy(), []), picture)
    assert (outlined(picture.copy(), [(9, 9), (40, 30)]) == 255).any()


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
    command = [sys.executable, "-m", "tools.annotate", photos, "--video", film.path, "--checkpoint", root / "last.pth",
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

    def press(self, name):
        element = self.find(f"#{name}")
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        time.sleep(0.3)
        element.click()

    def step(self, number):
        tabs = self.browser.find_elements("css selector", "button[role=tab]")
        next(tab for tab in tabs if tab.is_displayed() and tab.text.startswith(str(number))).click()

    def go(self, number, then):
        box = self.find("#frame input[type=number]")
        box.click()
        box.send_keys("\ue003" * 6, f"{number}\ue004")       # backspaces, number, tab
        self.wait(then)
        time.sleep(3)                                        # the editor draws its picture without saying when

    def stroke(self, down):
        """Paint from a point above the middle downwards, by so many pixels of the page."""
        from selenium.webdriver import ActionChains
        canvas = self.find("#editor canvas")
        ActionChains(self.browser).move_to_element_with_offset(canvas, 0, -down // 2).click_and_hold().move_by_offset(
            0, down // 2).move_by_offset(0, down // 2).release().perform()
        time.sleep(1)


@needs_browser
def test_strokes_are_saved_at_the_size_of_their_own_image(page, photos):
    support = photos.parent / "out" / "support"
    for number, size in ((1, (200, 83)), (2, (901, VIEW_SIDE + 323))):
        page.go(number, f"{size[1]} x {size[0]} pixels")
        page.stroke(80)
        page.press("save")
        page.wait("Saved.")
        mask = load_mask(support, str(number), size)
        rows, cols = (np.argwhere(mask).min(axis=0), np.argwhere(mask).max(axis=0) + 1)
        assert mask[size[0] // 2, size[1] // 2] and 0.005 < mask.mean() < 0.3
        middle = (rows + cols) / 2
        assert np.abs(middle - np.array(size) / 2).max() < 0.06 * max(size), (middle, size)
    before = load_mask(support, "1", (200, 83))
    page.go(1, "83 x 200 pixels")
    page.press("save")
    page.wait("Saved.")
    assert np.array_equal(load_mask(support, "1", (200, 83)), before)       # strokes of frame 2 are not on it
    page.press("remove")
    page.wait("Nothing of it is saved.")
    assert saved_names(support) == ["2"]


@needs_browser
def test_marks_are_there_again_after_a_look_at_another_frame(page):
    time.sleep(3)
    page.stroke(60)
    page.go(1, "83 x 200 pixels")
    page.go(0, "97 x 61 pixels")
    assert "0.0% marked" not in page.find("#status").text


@needs_browser
def test_saved_supports_are_segmented_and_the_film_is_seen(page, photos):
    page.step(2)
    page.press("segment")
    film = page.find("#film video")
    page.until(lambda: page.browser.execute_script("return arguments[0].readyState", film) >= 2, "a frame of the film")
    rows = 48 + len(caption(80, ""))
    assert page.browser.execute_script("return [arguments[0].videoWidth, arguments[0].videoHeight]", film) == [
        80, rows + rows % 2]
    page.step(2)
    assert "4 frames" in page.find("#log textarea").get_attribute("value")
    assert len(list((photos.parent / "out" / "result" / "masks").glob("*.png"))) == 4


@needs_browser
def test_a_bad_frame_is_mended_and_the_film_goes_on_from_it(page, photos):
    page.step(3)
    page.until(lambda: len(page.browser.find_elements("css selector", "#worst img")) == 4, "four frames")
    page.press("worst button")
    page.wait("of the film, to be corrected")
    time.sleep(3)
    page.stroke(60)
    page.until(lambda: "Kept" in page.find("#status").text or page.press("keep"), "the mask is kept")
    page.press("continue")
    page.find("#before video")
    numbers = [int(p.stem) for p in (photos.parent / "out" / "result_2" / "corrected").glob("*.png")]
    drawn, found = (Result(photos.parent / "out" / name) for name in ("result", "result_2"))
    assert len(numbers) == 1 and np.array_equal(drawn.mask(numbers[0]), found.found(numbers[0]))


@needs_browser
def test_mistakes_are_told_and_nothing_comes_from_elsewhere(page, address):
    page.step(1)
    page.press("save")
    assert "nothing is marked" in page.find(".toast-body").text
    requests = [json.loads(line["message"])["message"] for line in page.browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in requests if m["method"] == "Network.requestWillBeSent"}
    own = (address, f"blob:{address}", "data:", "chrome")     # the browser's own pages are chrome:...
    assert any(url.startswith(address) for url in asked) and not [url for url in asked if not url.startswith(own)]


@needs_browser
@pytest.mark.parametrize(("headers", "status"), [
    ({"Host": "example.org"}, 400), ({"Origin": "http://example.org"}, 403), ({"Origin": "null"}, 403),
    ({"Origin": "http://127.0.0.1:1"}, 403), ({"Sec-Fetch-Site": "cross-site"}, 403)])
@pytest.mark.parametrize("path", ["", "gradio_api/upload"])
def test_what_other_pages_send_is_refused(address, path, headers, status):
    request = urllib.request.Request(address + path, b"x" if path else None, headers)
    with pytest.raises(urllib.error.HTTPError, match=str(status)):
        urllib.request.urlopen(request)


@needs_browser
@pytest.mark.parametrize("header", [("Content-Length", str(2 ** 30 + 1)), ("Transfer-Encoding", "chunked")])
def test_an_upload_without_bounds_is_refused_before_it_is_read(address, header):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc, timeout=20)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader(*header)
    connection.endheaders()
    assert connection.getresponse().status == 429
