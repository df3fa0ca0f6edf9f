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
        libraries = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), ROOT, "/proc", "/sys", "/dev/null"}
        self.readable = [os.path.realpath(folder) for folder in libraries]
        self.active, self.anywhere, self.found, self.beside = False, False, [], set()
        self.crimes()                                          # what lies outside at first is none
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
        before, folders = self.beside, (self.outside, os.path.dirname(self.outside))
        self.beside = {str(path) for folder in folders for path in Path(folder).iterdir()}
        return "; ".join(self.found + [f"appeared outside: {name}" for name in self.beside - before])

    def _hook(self, event, arguments):
        if not self.active:
            return
        if event in NEVER:
            self.found.append(f"{event} {arguments!r}"[:300])
        elif event == "open":
            name, mode, flags = arguments
            self._look(event, name, bool(flags & WRITING) if isinstance(flags, int) else set(mode or "") & set("wax+"))
        elif event in CHANGES:
            for name in arguments[:2]:
                self._look(event, name, writes=True)

    def _look(self, event, name, writes):
        def within(folders):
            return any(path == folder or path.startswith(folder + os.sep) for folder in folders)
        if isinstance(name, str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(name))
            allowed = not writes and not within([self.outside]) and (self.anywhere or within(self.readable))
            if not allowed and not within([self.sandbox]):
                self.found.append(f"{event} of {os.fsdecode(name)!r}, which is outside")
