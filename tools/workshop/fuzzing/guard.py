"""What an input of tools/workshop/fuzz.py may not do: open files elsewhere, write beside its sandbox, start programs.

Python tells an audit hook of every file that it opens, also of those that C code opens through it. OpenCV and PyTorch
open files on their own; the project gives them bytes, or the path of the file itself.
"""
import os
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
           "os.chown", "shutil.rmtree", "shutil.move", "shutil.copyfile")
NEVER = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.startfile",
         "socket.connect", "socket.bind", "ctypes.dlopen", "pty.spawn", "webbrowser.open", "code.__new__")


class Guard:
    """Watches the process from its making on; sandbox: the folder that inputs may read and write."""

    def __init__(self, sandbox):
        self.sandbox, self.outside = os.path.realpath(sandbox), os.path.realpath(sandbox.parent / "outside")
        self.at_first = self._outside_now()
        libraries = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), ROOT, "/proc", "/sys", "/dev/null"}
        self.readable = [os.path.realpath(folder) for folder in libraries]
        self.active, self.anywhere, self.found = False, False, []
        sys.addaudithook(self._hook)

    @contextmanager
    def watching(self, reads_anywhere=False):
        self.found, self.anywhere, self.active = [], reads_anywhere, True
        try:
            yield
        finally:
            self.active = False

    def crimes(self):
        """What happened while watching that must not happen, in words; '' if nothing did."""
        found = self.found + [f"appeared outside: {name}" for name in self._outside_now() - self.at_first]
        self.at_first = self._outside_now()
        return "; ".join(found)

    def _outside_now(self):
        return {str(path) for folder in (self.outside, os.path.dirname(self.outside))
                for path in Path(folder).iterdir()}

    def _hook(self, event, arguments):
        if not self.active:
            return
        if event == "open":
            self._opened(*arguments)
        elif event in CHANGES:
            for name in arguments[:2]:
                if isinstance(name, str | bytes | os.PathLike) and not self._within(name, [self.sandbox]):
                    self.found.append(f"{event} of {name!r}")
        elif event in NEVER:
            self.found.append(f"{event} {arguments!r}"[:300])

    def _opened(self, name, mode, flags):
        if not isinstance(name, str | bytes | os.PathLike) or self._within(name, [self.sandbox]):
            return
        writes = bool(flags & WRITING) if isinstance(flags, int) else bool(set(mode or "") & set("wax+"))
        if writes or self._within(name, [self.outside]) or not (self.anywhere or self._within(name, self.readable)):
            self.found.append(f"opened {os.fsdecode(name)!r}, which is outside")

    @staticmethod
    def _within(name, folders):
        path = os.path.realpath(os.fsdecode(name))
        return any(path == folder or path.startswith(folder + os.sep) for folder in folders)
