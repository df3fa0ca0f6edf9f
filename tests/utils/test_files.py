"""Files are written whole or not at all, and a folder belongs to one run at a time."""
import subprocess
import sys

import pytest

from utils.files import atomic_file, owned

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
