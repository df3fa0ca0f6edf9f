"""Names out of data become names of files that stay in their folder, each its own."""
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from utils.files import LONGEST, safe_name

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
