"""Supports in one file: what went in comes out, any program opens it, and what is wrong is said and harmless."""
import io
import json
import zipfile

import numpy as np
import pytest
from material import box
from PIL import Image

from dataloaders.own import support_file
from dataloaders.own.support_file import write_support_file
from dataloaders.own.supports import Supports, read_supports

SIZE = (30, 40)


def supports(count=3, **more):
    rng = np.random.default_rng(0)
    return Supports([rng.integers(0, 255, (*SIZE, 3), np.uint8) for _ in range(count)],
                    [box(2 + k, 20, 5, 30, SIZE) for k in range(count)], [f"dog/{k}.jpg" for k in range(count)], **more)


FEATURES = {"features": np.arange(6, dtype=np.float32).reshape(2, 3), "masks": np.array([[True, False]]),
            "small": np.ones((0, 4), np.float16)}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "dog.support"
    write_support_file(path, supports(agreement=[0.5, None, 1.0], encoded=FEATURES), made_by="a model")
    return path


def test_what_went_in_comes_out_and_again_as_the_same_bytes(file, tmp_path):
    found, given = read_supports(file), supports()
    assert found.names == ["0.jpg", "1.jpg", "2.jpg"] and found.agreement == [0.5, None, 1.0]
    assert found.made_by == "a model"
    for a, b in zip([*found.images, *found.masks], [*given.images, *given.masks], strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)
    assert found.encoded.keys() == FEATURES.keys()
    for name, expected in FEATURES.items():
        assert found.encoded[name].dtype == expected.dtype and np.array_equal(found.encoded[name], expected)
    write_support_file(tmp_path / "again", found, found.made_by)
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_any_program_opens_it_and_sees_the_object(file):
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert np.array_equal(np.array(Image.open(io.BytesIO(archive.read("1_mask.png")))), supports().masks[1])
        assert Image.open(io.BytesIO(archive.read("0_small.jpg"))).size == SIZE[::-1]
        assert json.loads(archive.read("support.json"))["supports"][0] == {"name": "0.jpg", "agreement": 0.5}


def test_the_first_so_many_come_without_features(file):
    found = read_supports(file, shots=2)
    assert len(found.images) == len(found.masks) == len(found.names) == len(found.agreement) == 2
    assert found.encoded == {} and len(read_supports(file, shots=3).encoded) == 3
    with pytest.raises(ValueError, match="--shots 4: .* has 3 supports"):
        read_supports(file, shots=4)
    with pytest.raises(ValueError, match="--object and --category"):
        read_supports(file, object_number=1)


def rewritten(file, changes):
    """The same zip with other entries: {name: bytes, None: without it}, packed where the name ends with +"""
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    packed = {name.rstrip("+") for name in changes if name.endswith("+")}
    entries |= {name.rstrip("+"): data for name, data in changes.items()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            if data is not None:
                archive.writestr(name, data, zipfile.ZIP_DEFLATED if name in packed else zipfile.ZIP_STORED)


def described(file, change):
    """support.json after change(content)"""
    with zipfile.ZipFile(file) as archive:
        content = json.loads(archive.read("support.json"))
    change(content)
    return {"support.json": json.dumps(content)}


def png(array):
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize(("change", "words"), [
    (lambda f: {"support.json": b"{"}, "cannot be read"),
    (lambda f: {"support.json": None}, "is damaged"),
    (lambda f: {"support.json": b"[" * 100_000}, "cannot be read"),
    (lambda f: {"support.json+": b" " * 100}, "packed"),
    (lambda f: described(f, lambda c: c.update(version=2)), "cannot be read"),
    (lambda f: described(f, lambda c: c.update(supports=[])), "cannot be read"),
    (lambda f: described(f, lambda c: c["supports"].append({"name": "x"})), "no item named '3.png'"),
    (lambda f: described(f, lambda c: c["features"].update({"../x": {"dtype": "bool", "shape": []}})), "cannot be"),
    (lambda f: described(f, lambda c: c["features"]["features"].update(dtype="object")), "cannot be read"),
    (lambda f: described(f, lambda c: c["features"]["features"].update(shape=[2 ** 31] * 8)), "24 bytes"),
    (lambda f: {"features/features": np.full(6, np.nan, np.float32).tobytes()}, "not finite"),
    (lambda f: {"features/features": bytes(28)}, "28 bytes"),
    (lambda f: {"1.png": b"\xff\xd8 no picture"}, "1.png"),
    (lambda f: {"1_mask.png": png(np.zeros(SIZE, np.uint8))}, "empty"),
    (lambda f: {"1_mask.png": png(np.ones((3, 3), np.uint8))}, "does not fit")])
def test_what_is_wrong_is_one_sentence(file, change, words):
    rewritten(file, change(file))
    with pytest.raises(ValueError, match=words) as caught:
        read_supports(file)
    assert str(file) in str(caught.value) and "\n  " in str(caught.value)


def test_files_of_another_kind_and_damaged_ones_are_refused(file, tmp_path, monkeypatch):
    data = file.read_bytes()
    for name, content in (("nothing", b""), ("text", b"no zip" * 10), ("cut", data[:-5]), ("tail", data + b"x"),
                          ("flipped", data[:200] + bytes([data[200] ^ 1]) + data[201:]),
                          ("table", data[:-10] + b"\xff\xff\xff\x7f" + data[-6:])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_supports(tmp_path / name)
    monkeypatch.setattr(support_file, "MAX_PIXELS", 2000)
    with pytest.raises(ValueError, match="more than 2000 pixels"):
        read_supports(file)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_supports(tmp_path / "missing")
