"""tools/prepare_data.py: downloads come into their place whole and safe; videos of one's own keep their masks."""
import csv
import hashlib
import io
import json
import os
import random
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from material import SHARED, tree
from PIL import Image
from pycocotools import mask as rle
from tqdm import tqdm

from dataloaders.datasets.folds import YTVIS_CLASSES, split_classes
from dataloaders.datasets.ytvis import YouTubeVISIndex
from tools.dataset_preparation import archives as prepare_archives
from tools.dataset_preparation import weights as prepare_weights
from tools.dataset_preparation.categories import Table, assign_ids
from tools.dataset_preparation.sources import SOURCES
from tools.dataset_preparation.videos import find_davis, find_frames, read_objects, scan
from tools.prepare_data import main
from utils.pictures.overlay import save_palette_mask

ROWS, COLS = 48, 64


def refused(arguments, capsys):
    """What the command says when it ends with status 2."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err


def run(*arguments):
    return main([str(argument) for argument in arguments])


MINI_DAVIS = SHARED / "data" / "mini_davis"
OURS = Path(__file__).resolve().parents[2] / "config" / "davis" / "categories.csv"


def test_our_categories_of_davis_serve_all_four_folds():
    table = Table(OURS)
    assert len({video for video, _ in table.categories}) == 90          # of DAVIS 2017, TrainVal
    for fold in range(1, 5):
        assert len(split_classes(sorted(table.ids.values()), fold)[1]) == 2


@pytest.mark.skipif(not MINI_DAVIS.is_dir(), reason="needs the small DAVIS in ../shared/data/mini_davis")
def test_davis_is_arranged_into_our_categories(tmp_path):
    for part in ("JPEGImages", "Annotations"):
        (tmp_path / "DAVIS" / part / "480p").mkdir(parents=True)
        for name in ("schoolgirls", "bus", "dog"):
            (tmp_path / "DAVIS" / part / "480p" / name).symlink_to(MINI_DAVIS / part / "480p" / name)
    assert run("from-davis", tmp_path / "DAVIS", "--categories", OURS, "--output", tmp_path / "out", "--few-videos",
               "repeat") == 0
    index = YouTubeVISIndex(tmp_path / "out")
    assert {index.class_name(c): c for c in index.class_ids} == {
        "person": 1, "mammal": 4, "large_vehicle": 6, "other": 8}


# Downloads


@pytest.fixture(scope="module")
def files(demo_root):
    """Two videos of the demo, as the training split of YouTube-VIS is packed: {name: bytes}"""
    found = tree(demo_root)
    names = [name for name in found if name.startswith(("JPEGImages/demo_0000/", "JPEGImages/demo_0001/"))]
    return {name: found[name] for name in names} | {"train.json": b'{"videos": []}'}


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def tarred(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def arrange(downloads, output, dataset="ytvis"):
    return run("arrange", dataset, "--archives", downloads, "--output", output, "--no-check")


def unpacked(path, members):
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


@pytest.mark.parametrize("name", ["train.zip", "train.tar", "train.tar.gz", "train.tar.xz", ""])
@pytest.mark.parametrize("around", ["train/", ""])
def test_what_is_packed_lies_in_its_place_afterwards(name, around, files, tmp_path):
    downloads, output = tmp_path / "downloads", tmp_path / "out"
    downloads.mkdir()
    inside = {f"{around}{file}": content for file, content in files.items() if file != "train.json"}
    if ".tar" in name:
        tarred(downloads / name, inside, f"w:{name[10:]}")
    else:
        (zipped if name else unpacked)(downloads / name, inside)
    (downloads / "train.json").write_bytes(files["train.json"])
    assert arrange(downloads, output) == 0
    assert tree(output) == files


def test_an_interrupted_run_continues_and_a_complete_one_writes_nothing(files, tmp_path, capsys):
    zipped(tmp_path / "train.zip", files)
    output = tmp_path.parent / f"{tmp_path.name}_out"
    arrange(tmp_path, output)
    lost = sorted(files)[:3]
    for name in lost:
        (output / name).unlink()
    (output / f"{lost[0]}.part").write_bytes(b"half of it")
    untouched = {path: path.stat().st_mtime_ns for path in output.rglob("*.jpg")}
    capsys.readouterr()
    arrange(tmp_path, output)
    assert f"3 files written, {len(files) - 3} were there already" in capsys.readouterr().out
    assert tree(output) == files
    assert all(path.stat().st_mtime_ns == time for path, time in untouched.items())
    arrange(tmp_path, output)
    assert "0 files written" in capsys.readouterr().out


def test_other_splits_and_rubbish_are_not_taken(files, tmp_path, capsys):
    other = {f"JPEGImages/other/{t:05d}.jpg": b"x" for t in range(2)}
    zipped(tmp_path / "valid.zip", other)
    zipped(tmp_path / "mine.zip", files | {f"__MACOSX/{name}": b"y" for name in files} | {"JPEGImages/v/._1.jpg": b"z"}
           | {f"test/{name}": b"t" for name in other} | {f"train_all_frames/{name}": b"a" for name in other})
    output = tmp_path.parent / f"{tmp_path.name}_out"
    arrange(tmp_path, output)
    assert tree(output) == files
    assert "valid.zip" in capsys.readouterr().out


def test_the_arranged_demo_data_pass_the_check_and_load(demo_root, tmp_path, capsys):
    tarred(tmp_path / "demo.tar", {f"demo/{name}": content for name, content in tree(demo_root).items()}, "w")
    output = tmp_path.parent / f"{tmp_path.name}_out"
    code = run("arrange", "ytvis", "--archives", tmp_path, "--output", output)
    assert code == 1 and "few_videos" in capsys.readouterr().out       # two videos per category are too few for 5 shots
    assert YouTubeVISIndex(output).class_ids == YouTubeVISIndex(demo_root).class_ids
    next(output.rglob("*.jpg")).unlink()
    assert run("check", "ytvis", output) == 1
    assert "missing_file" in capsys.readouterr().out


NAMES = {
    "vspw": {"VSPW_480p/data/12_abc/origin/00000001.jpg": "data/12_abc/origin/00000001.jpg",
             "VSPW_480p/data/12_abc/mask/00000001.png": "data/12_abc/mask/00000001.png",
             "VSPW_480p/train.txt": "train.txt", "VSPW_480p/data/12_abc/mask/1.png": None},
    "minivspw": {"x/lists/nminivspw_pascal/test_3.txt": "minivspw_lists/test_3.txt", "x/train_2.txt":
                 "minivspw_lists/train_2.txt", "x/lists/other/test_3.txt": None, "x/lists/test_4.txt": None},
    "coco2014": {"train2014/train2014/COCO_train2014_000000000009.jpg": "train2014/COCO_train2014_000000000009.jpg",
                 "a/annotations/instances_train2014.json": "annotations/instances_train2014.json",
                 "a/annotations/captions_train2014.json": None},
    "coco2017": {"train2017/train2017/000000000009.jpg": "train2017/000000000009.jpg",
                 "a/annotations/instances_train2017.json": "annotations/instances_train2017.json"},
    "weights": {"resnet50_v2.pth": "resnet50_v2.pth", "x/resnet50-0676ba61.pth": "resnet50-0676ba61.pth"}}


@pytest.mark.parametrize("dataset", NAMES)
def test_names_of_the_official_archives_have_their_places(dataset):
    assert {name: SOURCES[dataset].destination(name) for name in NAMES[dataset]} == NAMES[dataset]


@pytest.mark.parametrize("dataset", SOURCES)
def test_explain_names_page_place_and_next_command(dataset, capsys):
    assert run("explain", dataset) == 0
    text = capsys.readouterr().out
    assert SOURCES[dataset].page in text and f"check {dataset} {SOURCES[dataset].root}" in text and "Download " in text


def linked_zip(path, files):
    info = zipfile.ZipInfo("JPEGImages/v/1.jpg")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path / "x.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")


def special_tar(kind):
    def write(path, files):
        with tarfile.open(path / "x.tar", "w") as archive:
            info = tarfile.TarInfo("JPEGImages/v/1.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    return write


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 255
    path.write_bytes(bytes(data))


def damaged_zip(path, files):
    zipped(path / "x.zip", files)
    flip(path / "x.zip", (path / "x.zip").stat().st_size // 2)          # within an image: its checksum fails


def damaged_header(path, files):
    """tarfile takes a header whose checksum fails for the end."""
    tarred(path / "x.tar", files, "w")
    flip(path / "x.tar", tarfile.open(path / "x.tar").getmembers()[-1].offset)


def cut_between_files(path, files):
    tarred(path / "x.tar", files, "w")
    os.truncate(path / "x.tar", tarfile.open(path / "x.tar").getmembers()[1].offset)


def huge_header(path, files):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2 ** 32
    (path / "x.tar").write_bytes(info.tobuf() + bytes(10240))


def sparse_header(path, files):
    with tarfile.open(path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("JPEGImages/v/1.jpg")
        info.size, info.pax_headers = 1, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x"}
        archive.addfile(info, io.BytesIO(b"1"))


OUTSIDE = ("../JPEGImages/v/1.jpg", "/JPEGImages/v/1.jpg", "a/../../JPEGImages/v/1.jpg")
BAD_ARCHIVES = {
    **{f"zip with {name}": (lambda path, files, name=name: zipped(path / "x.zip", {name: b"x"}), "leaves its folder")
       for name in OUTSIDE},
    **{f"tar with {name}": (lambda path, files, name=name: tarred(path / "x.tar.gz", {name: b"x"}), "leaves its folder")
       for name in OUTSIDE},
    "link in a zip": (linked_zip, "is a link"),
    **{f"{kind} in a tar": (special_tar(kind), "is a link") for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE,
                                                                         tarfile.CHRTYPE, tarfile.FIFOTYPE)},
    "sparse header": (sparse_header, "x.tar: cannot be read"),
    "two contents of one name": (lambda path, files: [zipped(path / f"x.{n}.zip", {"JPEGImages/v/1.jpg": b"%d" % n})
                                                      for n in (1, 2)], "x.2.zip has another content than what came"),
    "damaged zip": (damaged_zip, "x.zip: cannot be read"),
    "no zip": (lambda path, files: (path / "x.zip").write_bytes(b"<html>log in first</html>"), "x.zip: cannot be read"),
    "damaged header": (damaged_header, "x.tar: "),
    "cut between files": (cut_between_files, "truncated"),
    "header of gigabytes": (huge_header, "a header of 4294967296 bytes")}


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_bad_archives_are_named_and_write_nowhere_else(case, files, tmp_path, capsys):
    write, words = BAD_ARCHIVES[case]
    downloads, output = tmp_path / "a" / "downloads", tmp_path / "a" / "out"
    downloads.mkdir(parents=True)
    write(downloads, files)
    assert words in refused(["arrange", "ytvis", "--archives", downloads, "--output", output], capsys)
    assert all(files.get(name, b"1") == data for name, data in tree(output).items() if not name.endswith(".part"))
    assert all(path.is_relative_to(tmp_path / "a") and path.name.startswith("x.") or path.is_relative_to(output)
               for path in tmp_path.rglob("*") if not path.is_dir())


def test_a_link_in_the_output_is_not_followed(files, tmp_path, capsys):
    zipped(tmp_path / "x.zip", files)
    outside, output = tmp_path.parent / f"{tmp_path.name}_outside", tmp_path.parent / f"{tmp_path.name}_out"
    outside.mkdir()
    output.mkdir()
    (output / "JPEGImages").symlink_to(outside)
    assert "by a link" in refused(["arrange", "ytvis", "--archives", tmp_path, "--output", output], capsys)
    assert not list(outside.iterdir())


def test_what_would_fill_the_disk_is_refused(tmp_path, capsys, monkeypatch):
    command = ["arrange", "ytvis", "--archives", tmp_path, "--output", tmp_path / "out"]
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("JPEGImages/v/1.jpg", bytes(2 ** 20))
    monkeypatch.setattr(prepare_archives, "LARGEST_FILE", 2 ** 20 - 1)
    assert "has 1048576 bytes, more than" in refused(command, capsys)
    monkeypatch.setattr(prepare_archives, "MOST_BYTES", 2 ** 20 - 1)
    assert "unpacks to more than" in refused(command, capsys)
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
    assert "are free" in refused(command, capsys)
    assert not list((tmp_path / "out").rglob("*.jpg"))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_truncated_tar_is_named_and_leaves_whole_images_only(ending, share, files, tmp_path, capsys):
    archive = tmp_path / f"x.{ending}"
    tarred(archive, files, f"w:{ending[4:]}")
    content = archive.read_bytes()
    end = len(content) if ending != "tar" else len(content.rstrip(b"\0"))         # a tar is padded with zeros
    archive.write_bytes(content[:int(end * share)])
    assert archive.name in refused(["arrange", "ytvis", "--archives", tmp_path, "--output", tmp_path / "out"], capsys)
    assert all(files[name] == data for name, data in tree(tmp_path / "out").items() if not name.endswith(".part"))


def test_neither_links_nor_pipes_among_the_downloads_are_read(files, tmp_path, capsys):
    zipped(tmp_path / "x.zip", files)
    (tmp_path / "secret").write_bytes(b"mine")
    downloads, output = tmp_path / "downloads", tmp_path / "out"
    downloads.mkdir()
    (downloads / "train.json").symlink_to(tmp_path / "secret")
    (downloads / "linked.zip").symlink_to(tmp_path / "x.zip")
    (downloads / "folder").symlink_to(tmp_path)
    os.mkfifo(downloads / "pipe.tar")
    assert "nothing of YouTube-VIS" in refused(
        ["arrange", "ytvis", "--archives", downloads, "--output", output], capsys)
    assert not output.exists() or not tree(output)


def test_a_link_where_a_part_is_written_is_not_written_through(files, tmp_path):
    name = next(name for name in files if name.endswith(".jpg"))
    zipped(tmp_path / "x.zip", files)
    outside, part = tmp_path.parent / f"{tmp_path.name}_kept", tmp_path.parent / f"{tmp_path.name}_out" / f"{name}.part"
    outside.write_bytes(b"mine")
    part.parent.mkdir(parents=True)
    part.symlink_to(outside)
    arrange(tmp_path, tmp_path.parent / f"{tmp_path.name}_out")
    assert outside.read_bytes() == b"mine" and part.with_suffix("").read_bytes() == files[name]


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tar.xz"])
def test_whatever_is_damaged_is_read_or_named(ending, tmp_path):
    """Bits turned, bytes lost and added: never another error, never a file elsewhere."""
    members, rng = {f"JPEGImages/v/{i}.jpg": bytes(range(200)) for i in range(3)}, random.Random(1)
    archive = tmp_path / "downloads" / f"x.{ending}"
    archive.parent.mkdir()
    zipped(archive, members) if ending == "zip" else tarred(archive, members, f"w:{ending[4:]}")
    whole = archive.read_bytes()
    for _ in range(60):
        data, place = bytearray(whole), rng.randrange(len(whole))
        data[place:place + rng.choice((0, 1, 1, 30))] = rng.randbytes(rng.choice((0, 1, 1, 30)))
        archive.write_bytes(data)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        try:
            prepare_archives.arrange(archive.parent, tmp_path / "out", SOURCES["ytvis"].destination, tqdm(disable=True))
        except ValueError as error:
            assert archive.name in str(error)
    assert {path.name for path in tmp_path.iterdir()} <= {"downloads", "out"}


def test_a_file_of_another_size_is_never_replaced(files, tmp_path, capsys):
    output = tmp_path.parent / f"{tmp_path.name}_out"
    zipped(tmp_path / "x.zip", files)
    (output / "JPEGImages" / "demo_0000").mkdir(parents=True)
    mine = output / "JPEGImages" / "demo_0000" / "00000.jpg"
    mine.write_bytes(b"mine")
    assert "Nothing was replaced" in refused(["arrange", "ytvis", "--archives", tmp_path, "--output", output], capsys)
    assert mine.read_bytes() == b"mine"


def test_a_folder_without_the_data_set_says_what_to_download(tmp_path, capsys):
    zipped(tmp_path / "x.zip", {"readme.md": b"x"})
    assert "explain vspw" in refused(["arrange", "vspw", "--archives", tmp_path, "--output", tmp_path / "o"], capsys)
    assert "explain ytvis" in refused(["check", "ytvis", tmp_path], capsys)


# Weights and lists


def test_weights_are_compared_by_sha256(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_weights, "matching_keys", lambda path: {})
    digest = hashlib.sha256(b"weights").hexdigest()
    good, bad = tmp_path / f"resnet50-{digest[:8]}.pth", tmp_path / "resnet50-0676ba61.pth"
    for path in (good, bad):
        path.write_bytes(b"weights")
    assert prepare_weights.check_weights(good, digest.upper())[0] == digest
    with pytest.raises(ValueError, match="its name says 0676ba61"):
        prepare_weights.check_weights(bad)
    with pytest.raises(ValueError, match="--sha256 says 1234"):
        prepare_weights.check_weights(good, "1234" * 16)


@pytest.mark.skipif(not (SHARED / "data/weights").is_dir(), reason="needs the weights in ../shared/data")
def test_real_weights_say_which_keys_they_need(capsys):
    assert run("check", "weights", SHARED / "data/weights") == 0
    text = capsys.readouterr().out
    assert "backbone.stem=plain" in text and "model.high_level=c4" in text


@pytest.mark.skipif(not (SHARED / "data/minivspw_lists").is_dir(), reason="needs the lists in ../shared/data")
def test_published_lists_lack_only_what_was_never_published(capsys):
    assert run("check", "minivspw", SHARED / "data/minivspw_lists") == 1
    text = capsys.readouterr().out
    assert "3 errors, 0 warnings" in text and "0 contradictions" in text


# Videos of one's own


def write_own(demo_root, root):
    """The demo data as frames and palette masks, in the layout of DAVIS  ->  the table's rows"""
    index, rows = YouTubeVISIndex(demo_root), []
    document = json.loads((demo_root / "train.json").read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    for video in document["videos"]:
        shown = sorted({a["category_id"] for a in document["annotations"] if a["video_id"] == video["id"]})
        name = index.video_name(video["id"])
        rows += [(name, number, names[number], number) for number in shown]
        for t, file in enumerate(video["file_names"]):
            numbers = np.zeros(index.size(video["id"]), np.uint8)
            for number in shown:
                numbers[index.read_mask(video["id"], t, number)] = number
            save_palette_mask(root / "Annotations/480p" / Path(file).with_suffix(".png"), numbers)
    shutil.copytree(demo_root / "JPEGImages", root / "JPEGImages/480p")
    return rows


def test_masks_and_images_come_back_identical(demo_root, tmp_path, capsys):
    own, output, table = tmp_path / "own", tmp_path / "out", tmp_path / "objects.csv"
    rows = write_own(demo_root, own)
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows([("video", "object", "category", "id"), *rows])
    assert run("from-davis", own, "--categories", table, "--output", output, "--shots", 1) == 0
    before, after = YouTubeVISIndex(demo_root), YouTubeVISIndex(output)
    assert after.class_ids == before.class_ids
    ids = {after.video_name(video): video for c in after.class_ids for video in after.videos(c)}
    for number in before.class_ids:
        assert after.class_name(number) == before.class_name(number)
        assert [after.video_name(v) for v in after.videos(number)] == [before.video_name(v) for v in
                                                                     before.videos(number)]
        for video in before.videos(number):
            same = ids[before.video_name(video)]
            for t in range(before.length(video)):
                assert np.array_equal(after.read_mask(same, t, number), before.read_mask(video, t, number))
    assert np.array_equal(after.read_image(same, 3), before.read_image(video, 3))
    assert "fold 1 tests" in capsys.readouterr().out


@pytest.mark.parametrize("find, frame, mask", [
    (find_frames, "v/{}.jpg", "v/{}.png"), (find_frames, "v/{}.jpg", "v/{}_mask.png"),
    (find_frames, "v/{}.png", "v/{}_mask.png"), (find_frames, "v/images/{}.jpg", "v/masks/{}.png"),
    (find_frames, "v/rgb/{}.jpeg", "v/labels/{}.png"), (find_davis, "JPEGImages/v/{}.jpg", "Annotations/v/{}.png"),
    (find_davis, "JPEGImages/480p/v/{}.jpg", "Annotations/480p/v/{}.png")])
def test_every_layout_gives_each_frame_its_mask_in_the_order_of_numbers(find, frame, mask, tmp_path):
    for t in range(12):
        for name in (frame.format(t), mask.format(t)):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
    (found,), others = find(tmp_path)
    assert found.name == "v" and not others
    assert [*found.frames.items()] == [(str(t), tmp_path / frame.format(t)) for t in range(12)]
    assert {stem: found.masks[stem] for stem in found.frames} == {str(t): tmp_path / mask.format(t) for t in range(12)}


def video(root, masks, name="v", suffix=".jpg"):
    """A video of one's own: masks (H, W) arrays or PIL images, None = this frame has none"""
    for t, mask in enumerate(masks):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((ROWS, COLS, 3), 20 * t, np.uint8)).save(folder / f"{t}{suffix}")
        if mask is not None:
            (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(folder / f"{t}.png")
    return root


def square(value, dtype=np.uint8, at=4):
    mask = np.zeros((ROWS, COLS), dtype)
    mask[at:at + 10, at:at + 20] = value
    return mask


def objects_of(root):
    (one,), _ = find_frames(root)
    scan(one)
    return one


COLOURS = np.zeros((ROWS, COLS, 3), np.uint8)
COLOURS[:10], COLOURS[20:30] = (0, 0, 255), (200, 0, 0)
OBJECTS = {
    "grey": (square(255), [1]), "one": (square(1), [1]),
    "bits": (Image.fromarray(square(255)).convert("1"), [1]), "rgb": (Image.fromarray(square(255)).convert("RGB"), [1]),
    "alpha": (np.dstack([square(255)] * 4), [1]), "void apart": (np.maximum(square(2), square(255, at=20)), [2]),
    "16 bits, 255 among larger ones": (np.maximum(square(1001, np.uint16), square(255, np.uint16, at=20)), [255, 1001]),
    "pure blue beside red": (COLOURS, [(1 << 24) + 255, 200 << 16])}


@pytest.mark.parametrize("case", OBJECTS)
def test_a_mask_shows_these_objects(case, tmp_path):
    mask, numbers = OBJECTS[case]
    one = objects_of(video(tmp_path, [mask]))
    assert sorted(one.tracks) == sorted(numbers) and one.size == (ROWS, COLS)


def disc(radius=13):
    y, x = np.mgrid[:ROWS, :COLS]
    return (x - 30) ** 2 + (y - 22) ** 2 < radius ** 2


def soft(levels=255, top=255, width=3):
    """A white disc whose edge is a ramp of so many levels"""
    return np.round(np.round(cv2.blur(disc().astype(float), (width, width)) * levels) / levels * top).astype(np.uint8)


SOFT = {
    "four values": soft(3), "three values": soft(2), "many values": soft(), "wider": soft(8, width=7),
    "not quite white": soft(3, top=250), "in colour": np.dstack([soft(3)] * 3),
    "16 bits": soft(3).astype(np.uint16) * 257, "dark": soft(width=9) // 4,
    "a stray pixel": np.where(disc(1), 128, 255 * disc()).astype(np.uint8),
    "jpeg": cv2.imdecode(cv2.imencode(".jpg", disc() * np.uint8(255))[1], cv2.IMREAD_GRAYSCALE)}


@pytest.mark.parametrize("case", SOFT)
def test_of_a_soft_edge_what_is_more_than_half_white_is_the_object(case, tmp_path):
    one = objects_of(video(tmp_path, [SOFT[case]] * 2))
    found = rle.decode(one.tracks[1][1]).astype(bool)
    assert list(one.tracks) == [1] and "soft edges" in one.note
    assert (found & disc()).sum() > 0.9 * (found | disc()).sum()


@pytest.mark.parametrize("label", [1, 15, 90])
@pytest.mark.parametrize("rim", [1, 2, 5])
def test_255_around_smaller_numbers_is_void(label, rim, tmp_path):
    """As in PASCAL VOC; also of a small object, most of which is rim."""
    for radius in (4, 13):
        rest = cv2.dilate(disc(radius).astype(np.uint8), np.ones((2 * rim + 1,) * 2)) > 0
        mask = np.where(disc(radius), label, 255 * rest).astype(np.uint8)
        one = objects_of(video(tmp_path / str(radius), [mask]))
        assert list(one.tracks) == [label] and "void" in one.note
        assert np.array_equal(rle.decode(one.tracks[label][0]).astype(bool), disc(radius))


def turned(root):
    video(root, [square(1)])
    tags = Image.Exif()
    tags[0x0112] = 3
    Image.new("RGB", (COLS, ROWS)).save(root / "v" / "0.jpg", exif=tags)


def test_an_orientation_tag_that_says_nothing_asks_for_no_turn(tmp_path):
    video(tmp_path, [square(1)])
    tags = Image.Exif()
    tags[0x0112] = 0
    Image.new("RGB", (COLS, ROWS)).save(tmp_path / "v" / "0.jpg", exif=tags)
    assert list(objects_of(tmp_path).tracks) == [1]


def deep_colours(root):
    video(root, [square(1)])
    assert cv2.imwrite(str(root / "v" / "0.png"), np.zeros((ROWS, COLS, 3), np.uint16))


REFUSED = {
    "bands": ([np.where(disc(8), 255, 128 * disc(16)).astype(np.uint8)],
              "video v: its masks have 255 within 128: a soft edge, or void"),
    "photograph": ([np.random.default_rng(0).integers(0, 255, (ROWS, COLS, 3), np.uint8)],
                   "0.png: more than 256 different values"),
    "soft colours": ([cv2.blur(np.dstack([square(200), square(30), square(90, at=20)]), (3, 3))],
                     "most of them on edges"),
    "another size": ([square(1), square(1)[:10]], "1.png: 10 x 64 pixels, but the first frame of video v has 48 x 64"),
    "turned frame": (turned, r"0\.jpg asks to be turned"),
    "16 bits per colour": (deep_colours, r"0\.png has colours of 16")}


@pytest.mark.parametrize("case", REFUSED)
def test_masks_that_could_mean_anything_are_refused(case, tmp_path):
    masks, words = REFUSED[case]
    if callable(masks):
        masks(tmp_path)
    else:
        video(tmp_path, masks)
    with pytest.raises(ValueError, match=words):
        objects_of(tmp_path)


def test_other_kinds_of_picture_and_what_has_no_partner_are_named(tmp_path, capsys):
    for name, kind in (("webp", "images/0.webp"), ("jpeg", "masks/0.jpg"), ("array", "masks/0.npy")):
        root = video(tmp_path / name, [square(1)], name="other")
        (root / "other/0.png").unlink()
        (root / "v" / kind).parent.mkdir(parents=True)
        Image.fromarray(square(1)).save(root / "v" / kind, "WEBP" if name == "webp" else "JPEG")
        said = refused(["from-frames", root, "--category", "dog", "--output", tmp_path / "out"], capsys)
        assert {"webp": ".webp", "jpeg": "masks as JPEG", "array": ".npy"}[name] in said
    video(tmp_path / "some", [square(1), None])
    run("from-frames", tmp_path / "some", "--category", "dog", "--output", tmp_path / "some_out")
    assert "1 frames have no mask of their name and are left out" in capsys.readouterr().out
    video(tmp_path / "back\\slash", [square(1)], "a\\b")
    assert "is no file name for annotations" in refused(
        ["from-frames", tmp_path / "back\\slash", "--category", "dog", "--output", tmp_path / "back"], capsys)
    Image.fromarray(square(1)).save(tmp_path / "some/v/0.jpeg")
    (tmp_path / "some/v").rename(tmp_path / "some/images")
    (tmp_path / "some/v").mkdir()
    (tmp_path / "some/images").rename(tmp_path / "some/v/images")
    (tmp_path / "some/v/masks").mkdir()
    (tmp_path / "some/v/images/0.png").rename(tmp_path / "some/v/masks/0.png")
    assert "has the same name" in refused(
        ["from-frames", tmp_path / "some", "--category", "dog", "--output", tmp_path / "twice"], capsys)


def test_raised_digits_in_names_are_no_numbers(tmp_path):
    video(tmp_path, [square(1)] * 2, suffix=".jpg")
    for path in list((tmp_path / "v").iterdir()):
        path.rename(path.with_name(f"1\u00b2{path.name}"))
    assert objects_of(tmp_path).stems == ["1\u00b20", "1\u00b21"]


def test_colours_are_objects_and_transparency_is_background(tmp_path):
    colours = np.zeros((ROWS, COLS, 4), np.uint8)
    colours[..., 0], colours[..., 3] = 200, 255
    colours[:20] = 10, 20, 30, 255
    colours[40:] = 90, 90, 91, 0
    Image.fromarray(colours).save(tmp_path / "a.png")
    numbers = read_objects(tmp_path / "a.png")
    assert set(np.unique(numbers)) == {0, 200 << 16, (10 << 16) + (20 << 8) + 30}
    assert (numbers[40:] == 0).all()


def test_frames_without_mask_are_left_out(tmp_path):
    assert objects_of(video(tmp_path, [square(1), None, square(1)])).stems == ["0", "2"]


def test_a_table_is_written_filled_and_read(tmp_path, capsys):
    own, table, output = tmp_path / "own", tmp_path / "t.csv", tmp_path / "out"
    for name in ("a", "b"):
        video(own, [np.maximum(square(1), square(2, at=20))] * 3, name)
    assert run("from-frames", own, "--write-table", table) == 0
    rows = list(csv.DictReader(table.open()))
    assert [(row["video"], row["object"], row["category"]) for row in rows] == [
        ("a", "1", ""), ("a", "2", ""), ("b", "1", ""), ("b", "2", "")]
    assert "line 2: the category is ''" in refused(
        ["from-frames", own, "--categories", table, "--output", output], capsys)
    for row, name in zip(rows, ("dog", "-", "dog", "unicorn"), strict=True):
        row["category"] = name
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert run("from-frames", own, "--categories", table, "--output", output) == 0
    index = YouTubeVISIndex(output)
    assert {index.class_name(n): (n, len(index.videos(n))) for n in index.class_ids} == {"dog": (8, 2),
                                                                                        "unicorn": (41, 1)}
    assert "holds a train.json" in refused(["from-frames", own, "--category", "dog", "--output", output], capsys)


def test_folders_are_categories_and_one_fold_alone_is_said(tmp_path, capsys):
    for category in ("dog", "cat"):
        video(tmp_path / "own" / category, [square(1)] * 2, "clip")
    assert run("from-frames", tmp_path / "own", "--output", tmp_path / "out", "--shots", 1) == 0
    assert set(tree(tmp_path / "out")) == {"train.json", *(
        f"JPEGImages/{c}_clip/{t}.jpg" for c in ("dog", "cat") for t in range(2))}
    text = capsys.readouterr().out
    assert "1 supports and a query need 2 videos of a category; cat has 1" in text and "python test.py" not in text
    shutil.rmtree(tmp_path / "out")
    run("from-frames", tmp_path / "own", "--output", tmp_path / "out", "--shots", 1, "--few-videos", "repeat")
    text = capsys.readouterr().out
    assert "fold 2 tests cat" in text and "fold 4 tests dog" in text and "data.shots=1 data.few_videos=repeat" in text
    assert run("from-frames", tmp_path / "own", "--category", "dog", "--output", tmp_path / "one") == 0
    assert "use segment.py" in capsys.readouterr().out


def test_published_names_keep_their_fold_and_novel_ones_are_tested_in_fold_1():
    ids = assign_ids({"dog", "zebra", "robot", "drone"})
    assert ids == {"dog": 8, "zebra": 30, "drone": 41, "robot": 42}
    assert all(YTVIS_CLASSES[ids[name]] == name for name in ("dog", "zebra"))
    names = [f"thing {i}" for i in range(9)]
    ids = assign_ids(names, novel=["thing 3", "thing 7"])
    base, novel = split_classes(ids.values(), 1)
    assert sorted(novel) == sorted(ids[name] for name in ("thing 3", "thing 7")) and len(base) == 7
    assert len(set(ids.values())) == 9 and {(n - 1) % 4 for n in ids.values()} == {0, 1, 2, 3}
    assert assign_ids(["a", "dog"], {"a": 8}, novel=["dog"])["a"] == 8
    with pytest.raises(ValueError, match="same id"):
        assign_ids(["a", "dog"], {"a": 8})
    with pytest.raises(ValueError, match="--novel cat: no object"):
        assign_ids(["dog"], novel=["cat"])


@pytest.mark.parametrize(("name", "text", "what"), [
    ("a.csv", "video,category\nv,dog\n", "has no object"), ("a.csv", "video,object,category\nv,one,dog\n", "line 2"),
    ("a.csv", "video,object,category\nv,1,dog\nv,1,cat\n", "two categories"),
    ("a.csv", "video,object,category,id\nv,1,dog,0\n", "not a number from 1"), ("a.json", "[1]", "expected an object"),
    ("a.json", '{"v": {"1": 3}}', "is an integer, expected text"), ("a.json", "{", "no valid JSON"),
    ("a.csv", "\xff", "no UTF-8")])
def test_a_wrong_table_is_named_with_its_place(name, text, what, tmp_path):
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=what) as error:
        Table(tmp_path / name)
    assert name in str(error.value) and "video,object,category" in str(error.value)


def test_json_tables_are_read_as_csv_ones(tmp_path):
    (tmp_path / "a.json").write_text('{"v": {"1": "dog", "2": "cat"}, "w": "horse"}')
    assert Table(tmp_path / "a.json").categories == {("v", 1): "dog", ("v", 2): "cat", ("w", "*"): "horse"}
