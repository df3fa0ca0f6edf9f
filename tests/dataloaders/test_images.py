"""The image reader: pixels as OpenCV decodes them, masks as stored, and whatever is wrong is refused by name."""
import io
import os
import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from dataloaders import images
from dataloaders.images import as_picture, image_size, natural, numbers, pixels, read_image, read_mask
from dataloaders.mask_values import as_mask

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 255, (60, 80, 3), np.uint8)


def saved(image, form="JPEG", **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, form, **options)
    return file.getvalue()


def png(rows, cols, colour_type=0, content=b"", depth=8):
    """A PNG of one channel whose pixels are `content`, uncompressed"""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", cols, rows, depth, colour_type, 0, 0, 0))
    palette = chunk(b"PLTE", bytes(768)) if colour_type == 3 else b""
    return images.PNG_START + header + palette + chunk(b"IDAT", zlib.compress(content, 9)) + chunk(b"IEND", b"")


def test_a_png_whose_first_chunk_is_not_its_header_is_refused(tmp_path):
    """Its size and depth would be read from somewhere else."""
    whole, path = png(8, 8, content=bytes(72)), tmp_path / "a.png"
    body = b"tEXt" + b"Comment\0" + bytes(9)
    first = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(whole[:8] + first + whole[8:])
    for read in (read_image, read_mask, image_size):
        with pytest.raises(ValueError, match="a.png is damaged .its first chunk is no IHDR"):
            read(path)


def opencv(data):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


# -- what is read

@pytest.mark.skipif(not DATA.is_dir(), reason="needs real images in ../shared/data")
def test_real_photographs_have_the_pixels_of_both_decoders():
    files = sorted(DATA.glob("mini_*/**/*.jpg"))[::60]
    assert len(files) > 30
    for file in files:
        image = read_image(file)
        np.testing.assert_array_equal(image, np.asarray(Image.open(file).convert("RGB")))
        np.testing.assert_array_equal(image, opencv(file.read_bytes()))
        assert image_size(file) == image.shape[:2]


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("image", [NOISE, NOISE[..., 0], np.dstack([NOISE, NOISE[..., :1]]), NOISE[..., 0] > 99,
                                   NOISE[..., 0].astype(np.uint16) * 257], ids=["rgb", "grey", "rgba", "bits", "16"])
def test_other_images_have_the_pixels_of_opencv(form, image):
    if form == "JPEG":
        image = image[..., :3] if image.ndim == 3 else (image > 99).astype(np.uint8) * 255
    data = saved(image, form)
    np.testing.assert_array_equal(pixels(data, "a"), opencv(data))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_obeyed_where_it_is_asked_for_and_nowhere_else(tmp_path, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(NOISE, form, exif=exif))
    stored = Image.open(path)
    np.testing.assert_array_equal(read_image(path), np.asarray(stored.convert("RGB")))
    np.testing.assert_array_equal(read_image(path, upright=True), np.asarray(ImageOps.exif_transpose(stored)))
    assert image_size(path) == NOISE.shape[:2]
    if form == "JPEG":
        np.testing.assert_array_equal(read_image(path, upright=True), cv2.imread(str(path))[..., ::-1])


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0garbage" * 9])
def test_a_broken_orientation_is_none(tmp_path, exif):
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(NOISE, exif=exif))
    np.testing.assert_array_equal(read_image(path, upright=True), read_image(path))


@pytest.mark.parametrize("behind", [b"\0" * 37, b"SEFH" + bytes(range(64)) + b"SEFT", b"ftypmp42" * 500, saved(NOISE)])
def test_what_follows_the_end_of_a_jpeg_does_not_matter(behind):
    np.testing.assert_array_equal(pixels(saved(NOISE) + behind, "a"), opencv(saved(NOISE)))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("colour_type", [0, 3])
def test_numbers_of_a_mask_are_those_stored(depth, colour_type):
    values = np.arange(24).reshape(3, 8) % 2 ** depth
    bits = ((values[..., None] >> np.arange(depth)[::-1]) & 1).reshape(3, -1).astype(np.uint8)
    rows = np.hstack([np.zeros((3, 1), np.uint8), np.packbits(bits, axis=1)]).tobytes()
    found = numbers(png(3, 8, colour_type, rows, depth), "a")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, values)


def test_masks_of_16_bits_and_in_colour_are_read(tmp_path):
    wide, path = NOISE[..., 0].astype(np.uint16) + 1000, tmp_path / "a.png"
    for mask in (wide, NOISE, np.dstack([NOISE, NOISE[..., :1]])):
        path.write_bytes(saved(mask, "PNG"))
        assert read_mask(path).dtype == mask.dtype
        np.testing.assert_array_equal(read_mask(path), mask)
    Image.fromarray(NOISE[..., 0]).convert("LA").save(path)
    assert read_mask(path).shape == (60, 80, 4)


# -- what is refused

@pytest.mark.parametrize("data, message", [
    (b"", "has 0 bytes"), (b"P6 60000 60000 255\n", "no JPEG or PNG"), (b"GIF89a\xff\xff\xff\xff", "is GIF, whatever"),
    (b"BM" + bytes(60), "is BMP"), (saved(NOISE, "WEBP"), "is WebP"), (saved(NOISE, "TIFF"), "is TIFF"),
    (b"\0\0\0\x18ftypheic", "is HEIC"), (b"\xff\xd8", "truncated"), (b"\xff\xd8\xff\xd9", "no JPEG"),
    (b"\xff\xd8" + b"\xff\x01" * 50_000, "truncated"), (images.PNG_START + b"\0\0\0\rIHDR", "is truncated"),
    (png(60_000, 50_000), "has 60000 x 50000 pixels, more than"), (png(8192, 4097), "more than"),
    (png(60_000, 50_000, 3), "has 60000 x 50000 pixels, more than"),
    (png(3, 8, 0, bytes(20)), "cannot be read"), (saved(NOISE, "PNG")[:-1], "is truncated"),
    (saved(NOISE, "PNG").replace(b"IDATx", b"IDATy"), "is damaged"), (saved(NOISE)[:-1], "is truncated")])
def test_what_is_no_whole_image_is_refused_by_name(tmp_path, data, message):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n  " in str(caught.value)
    with pytest.raises(ValueError, match="a.jpg"):
        read_mask(path)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_an_image_is_refused_wherever_it_is_cut_off_even_with_a_whole_one_in_its_header(form):
    whole, inner = saved(NOISE, form), saved(NOISE[:8, :8])
    if form == "JPEG":
        whole = whole[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(inner)) + inner + whole[2:]
    pixels(whole, "a")
    for cut in range(8, len(whole), 97):
        with pytest.raises(ValueError, match="a is (truncated|no JPEG or PNG that can)"):
            pixels(whole[:cut], "a")


@pytest.mark.parametrize("before", [b"", b"\xff" * 300, b"\xff\xe0\x00\x04\xff\xc0", b"garbage\xff\x00"])
def test_a_jpeg_that_is_a_decompression_bomb_is_refused_by_its_header(monkeypatch, before):
    data = bytearray(saved(NOISE))
    start = data.find(b"\xff\xc0")
    data[start + 5:start + 9] = struct.pack(">HH", 60_000, 50_000)
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(ValueError, match="has 60000 x 50000 pixels, more than"):
        pixels(bytes(data[:2] + before + data[2:]), "a")


@settings(max_examples=150, derandomize=True, deadline=None)
@given(rows=st.integers(1, 300), cols=st.integers(1, 300), form=st.sampled_from([".jpg", ".png"]),
       cut=st.integers(0, 2000), noise=st.binary(max_size=9), at=st.integers(0, 200))
def test_any_damage_is_refused_or_leaves_an_image_of_the_size_that_the_header_tells(rows, cols, form, cut, noise, at):
    data = cv2.imencode(form, np.zeros((rows, cols), np.uint8))[1].tobytes()
    assert pixels(data, "a").shape == (rows, cols, 3)
    damaged = (data[:at] + noise + data[at + len(noise):])[:cut or None]
    try:
        found = pixels(damaged, "a").shape
    except ValueError as error:
        assert str(error).startswith("a ")
    else:
        assert found == opencv(damaged).shape


def test_reading_takes_bounded_time():
    """Thousands of scans of one image, and a gigabyte behind the last row."""
    data, start = saved(np.zeros((3000, 3000), np.uint8), progressive=True), time.process_time()
    scan = data[data.rfind(b"\xff\xda"):-2]
    hidden = b"\xff\xfe\x00\x04\xff\xd9"                                        # a comment that looks like the end
    with pytest.raises(ValueError, match="scans of 3000 x 3000 pixels"):
        pixels(data[:-2] + hidden + scan * 3000 + data[-2:], "a")
    squeeze = zlib.compressobj(9)
    content = squeeze.compress(bytes(27)) + b"".join(squeeze.compress(bytes(2 ** 20)) for _ in range(1024))
    real, made = zlib.compress, content + squeeze.flush()
    try:
        zlib.compress = lambda *_: made
        bomb = png(3, 8)
    finally:
        zlib.compress = real
    start = time.process_time()
    assert pixels(bomb, "a").shape == (3, 8, 3) and numbers(bomb, "a").shape == (3, 8)
    assert time.process_time() - start < 1


def test_pipes_folders_and_files_of_a_terabyte_are_refused_by_every_reader(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with open(tmp_path / "large.jpg", "wb") as file:
        file.truncate(2 ** 40)
    for read in (read_image, read_mask, image_size):
        for name, message in (("pipe.jpg", "no regular file"), ("", "no regular file"),
                              ("large.jpg", f"more than {images.MAX_BYTES}")):
            with pytest.raises(ValueError, match=message):
                read(tmp_path / name)
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none.jpg")


def test_what_does_not_keep_the_numbers_of_a_mask_is_refused():
    with pytest.raises(ValueError, match="is a JPEG, which blurs"):
        numbers(saved(NOISE), "a")
    with pytest.raises(ValueError, match="colours of 16 bits"):
        numbers(cv2.imencode(".png", NOISE.astype(np.uint16) * 257)[1].tobytes(), "a")


# -- a caller's own

@pytest.mark.parametrize(("image", "reason"), [
    (np.zeros((4, 5, 4), np.uint8), "got shape"), (np.zeros((4, 5, 3), np.int32), "int32"),
    (np.full((4, 5, 3), 2.0), "normalised otherwise"), (np.full((4, 5, 3), np.nan), "normalised otherwise"),
    (np.zeros((0, 5, 3), np.uint8), "got shape"), (np.zeros(3, np.uint8), "got shape")])
def test_arrays_that_are_no_pictures_are_refused(image, reason):
    with pytest.raises(ValueError, match=f"here: .*{reason}"):
        as_picture(image, "here")


def test_masks_have_the_size_of_their_picture_and_show_something():
    picture, mask = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5))
    mask[1, 2] = 7
    assert as_mask(mask, picture, "here").sum() == 1
    for wrong, reason in ((mask.T, "shape"), (np.zeros((4, 5)), "empty")):
        with pytest.raises(ValueError, match=f"here: .*{reason}"):
            as_mask(wrong, picture, "here")


def test_names_are_sorted_by_their_numbers():
    names = ["b10", "b9", "a", "1\u00b20", "B11"]
    assert [p.name for p in sorted(map(Path, names), key=natural)] == ["1\u00b20", "a", "b9", "b10", "B11"]


@pytest.mark.parametrize("data", [
    png(8, 8)[:33] + 70_000 * (b"\0\0\0\0tIMx" + struct.pack(">I", zlib.crc32(b"tIMx"))),
    b"\xff\xd8" + 70_000 * b"\xff\xe0\x00\x02" + b"\xff\xd9"], ids=["chunks", "segments"])
def test_endlessly_many_parts_are_not_gone_through(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ValueError, match="has more than 65536 (chunks|segments)"):
        read_image(tmp_path / "a")
    if data.startswith(images.PNG_START):                         # whose header comes first
        assert image_size(tmp_path / "a") == (8, 8)
    else:
        with pytest.raises(ValueError, match="no JPEG or PNG that can be read"):
            image_size(tmp_path / "a")


def test_padding_between_segments_costs_no_time_when_the_orientation_is_looked_for(tmp_path):
    """Pillow goes through it byte by byte: minutes for what a file may have."""
    data = saved(NOISE)
    assert images.orientation(data[:2] + b"\xff" * 10 ** 7 + data[2:]) == 1
