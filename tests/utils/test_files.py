"""Files are written whole or not at all, names stay in their folder, and a folder belongs to one run at a time."""
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.files import LONGEST, atomic_file, owned, safe_name

HOLD = """
import sys
from utils.files import owned
with owned(sys.argv[1]):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_an_interrupted_write_leaves_what_was_there(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyError), atomic_file(tmp_path / "a", "w") as file:
        file.write("new")
        raise KeyError
    assert (tmp_path / "a").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_second_run_in_the_folder_is_refused_and_told_who_holds_it(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "mine\n"
    with pytest.raises(ValueError, match=f"(?s)belongs to a run that is going on: process {holder.pid} on .*--output"):
        with owned(tmp_path):
            pass
    holder.kill()                          # the lock dies with its owner
    holder.wait()
    with owned(tmp_path):
        pass


NASTY = ["..", ".", "", "/", "../../x", "/etc/passwd", "a/b", "a\\b", "C:\\x", "a\0b", "%2F", "a%2Fb", ".hidden", "x.",
         " ", "a ", "\n", "\u72d7", "\udcff", "~", "%", "a" * 1024, "a" * 1025, "\u72d7" * 300, "%-" + "0" * 32]


def test_ordinary_names_stay_as_they_are():
    for name in ("person", "earless_seal", "billboard_or_Bulletin_Board", "stop sign", "0a1f.v2", "davis_car-turn"):
        assert safe_name(name) == name


@given(st.text() | st.sampled_from(NASTY) | st.text("./\\% ~a", max_size=4), st.text() | st.sampled_from(NASTY))
def test_a_name_is_one_part_of_a_path_and_no_other_text_has_it(one, other):
    name = safe_name(one)
    assert Path("root", name).parts == ("root", name) and name not in (".", "..") and "\\" not in name
    assert name.isascii() and name.isprintable() and 0 < len(name) <= LONGEST
    assert (safe_name(other) == name) == (one == other)


def test_no_two_nasty_names_share_a_file(tmp_path):
    for name in NASTY:
        (tmp_path / safe_name(name)).mkdir()
    assert len(list(tmp_path.iterdir())) == len(set(NASTY)) == len(NASTY)
