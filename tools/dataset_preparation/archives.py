"""Downloaded archives -> a data set in its place, for tools/prepare_data.py.

In: a folder of .zip and .tar(.gz, .bz2, .xz) files, unpacked parts of them or single files; the rules that say which
file of them belongs where. Out: those files below the output folder, each of them whole or not there at all, so that an
interrupted run continues. Archives are not trusted: a destination is made by a rule of ours, never taken from a name.
"""
import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dataloaders.images import real_path
from dataloaders.json_values import is_file_name, shown

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
LARGEST = {".jpg": 2 ** 28, ".png": 2 ** 28, ".txt": 2 ** 28, ".json": 2 ** 31, ".pth": 2 ** 31}   # bytes of one file
MOST_MEMBERS = 5_000_000     # of one archive; the largest of the official ones have some 100 000
MOST_BYTES = 2 ** 39         # that one archive may unpack to, used or not: what is skipped is decompressed, too
LONGEST_END = 2 ** 24        # zeros that a tar is padded with
CHUNK = 2 ** 20
OPENERS = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}      # of a tar's ending
ENCRYPTED = 1                # bit of a zip member's flags
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError,
          NotImplementedError)


class Member(NamedTuple):
    """One regular file: <archive>/<its name there>, its size, how to open it, bytes of the archive up to it."""
    name: str
    size: int
    open: object
    position: int


@dataclass
class Arranged:
    """What became of the members: written, there already, and those that no rule wants, with a few of their names."""
    written: int = 0
    kept: int = 0
    unused: Counter = field(default_factory=Counter)
    examples: list = field(default_factory=list)


def find_files(folder):
    """Every file below a folder, sorted; links to folders are not followed."""
    if not folder.is_dir():
        raise FileNotFoundError(f"--archives {folder}: no such folder.\n  Name the folder with the downloaded files.")
    return sorted(Path(parent, name) for parent, _, names in os.walk(folder) for name in names)


def arrange(folder, output, destination, bar):
    """Put every file that a rule wants into its place.

    destination: name of a member, with '/', -> path below output or None; bar: tqdm or alike, counts bytes of the
    sources  ->  Arranged
    """
    result, files = Arranged(), find_files(folder)
    bar.total = sum(file.stat().st_size for file in files)
    for file in files:
        start = bar.n
        with members(file, folder) as found:
            _check_space(file, found, output, destination)
            for member in found.stream():
                target = destination(member.name)
                if target is None:
                    _note_unused(result, file, member)
                else:
                    _place(member, output, target, file, result)
                bar.update(start + member.position - bar.n)
        bar.update(start + file.stat().st_size - bar.n)
    return result


def _note_unused(result, file, member):
    result.unused[file.name] += 1
    if result.unused[file.name] <= 2:
        result.examples.append(f"{file.name}: {shown(member.name)}")


def _place(member, output, target, source, result):
    """Write one member, unless a file of its size is there; never over another file."""
    path = output / target
    limit = LARGEST[path.suffix.lower()]
    if member.size > limit:
        raise bad_archive(source, f"{shown(member.name)} has {member.size} bytes, more than {limit}")
    if path.exists():
        if path.stat().st_size != member.size:
            raise ValueError(f"{path}: has {path.stat().st_size} bytes, but {shown(member.name)} of {source} has "
                             f"{member.size}.\n  Nothing was replaced. Remove the wrong one of the two, and repeat.")
        result.kept += 1
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if not real_path(path.parent).is_relative_to(real_path(output)):
        raise ValueError(f"{path.parent}: leads out of {output} by a link.\n  Remove the link, or choose another "
                         f"--output.")
    part = path.with_name(path.name + ".part")
    with reading(source, member.name), member.open() as content, open(part, "wb") as file:
        _copy(content, file, member, source)
    os.replace(part, path)
    result.written += 1


def _copy(content: BinaryIO, file: BinaryIO, member, source):
    """All bytes, which have to be as many as the archive announces."""
    left = member.size
    while chunk := content.read(min(CHUNK, left + 1)):
        left -= len(chunk)
        if left < 0:
            break
        file.write(chunk)
    if left:
        raise bad_archive(source, f"{shown(member.name)} does not have the {member.size} bytes that are announced")


def _check_space(file, found, output, destination):
    """OSError before a zip is unpacked halfway; a tar tells its sizes only while it is read."""
    needed = found.wanted_bytes(lambda name: (target := destination(name)) and not (output / target).exists())
    output.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output).free
    if needed > free:
        raise OSError(f"{output}: {file.name} needs {needed / 2 ** 30:.1f} GiB, {free / 2 ** 30:.1f} GiB are free.\n"
                      f"  Choose an --output on a larger disk; what is unpacked already is not unpacked again.")


@contextmanager
def members(file, folder):
    """A file of the folder, opened as what it is: a zip, a tar, or itself."""
    name = file.name.lower()
    with reading(file):
        if name.endswith(".zip"):
            with zipfile.ZipFile(file) as archive:
                yield ZipMembers(archive, file)
        elif name.endswith(ARCHIVES):
            yield TarMembers(file)
        else:
            yield SingleFile(file, folder)


class ZipMembers:
    """The files of a zip; `archive`: zipfile.ZipFile, which checks the checksum of each."""

    def __init__(self, archive, file):
        self.archive, self.file = archive, file
        limits = Limits(file)
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            limits.check(info.filename, info.file_size, kind not in (0, stat.S_IFREG, stat.S_IFDIR))
            if info.flag_bits & ENCRYPTED:
                raise bad_archive(file, f"{shown(info.filename)} is encrypted")

    def wanted_bytes(self, wanted):
        return sum(info.file_size for info in self.archive.infolist() if wanted(f"{self.file.stem}/{info.filename}"))

    def stream(self):
        position = 0
        for info in self.archive.infolist():
            position += info.compress_size
            if not info.is_dir():
                name = f"{self.file.stem}/{info.filename}"
                yield Member(name, info.file_size, lambda info=info: self.archive.open(info), position)


class TarMembers:
    """The files of a tar, compressed or not, read once from front to back."""

    def __init__(self, file):
        self.file = file

    def wanted_bytes(self, wanted):
        return 0

    def stream(self):
        limits, opener = Limits(self.file), OPENERS.get(self.file.suffix.lower(), nullcontext)
        with open(self.file, "rb") as raw, opener(raw) as content, tarfile.open(fileobj=content, mode="r|") as archive:
            for info in archive:
                limits.check(info.name, info.size, not (info.isreg() or info.isdir()) or info.issparse())
                if info.isreg():
                    name = f"{self.file.name.partition('.')[0]}/{info.name.removeprefix('./')}"
                    yield Member(name, info.size, lambda info=info: archive.extractfile(info), raw.tell())
                archive.members = []             # else the list of all of them grows with the archive
            self._check_end(content)

    def _check_end(self, content):
        """tarfile takes a cut between two members for the end, and never asks for the checksum behind the last one."""
        if content.read(LONGEST_END + 1)[LONGEST_END:]:
            raise bad_archive(self.file, "something follows the end of the archive")
        if self.file.suffix.lower() not in OPENERS:
            with open(self.file, "rb") as raw:
                raw.seek(-min(tarfile.BLOCKSIZE, self.file.stat().st_size), os.SEEK_END)
                if any(raw.read()):
                    raise bad_archive(self.file, "it is truncated: the end marker is missing")


class SingleFile:
    """A file that was downloaded, or unpacked, by itself; its name is its path below the folder."""

    def __init__(self, file, folder):
        self.file, self.name = file, file.relative_to(folder).as_posix()

    def wanted_bytes(self, wanted):
        return self.file.stat().st_size if wanted(self.name) else 0

    def stream(self):
        size = self.file.stat().st_size
        yield Member(self.name, size, lambda: open(self.file, "rb"), size)


class Limits:
    """What no honest archive of a data set does; every member passes here, also those that nobody wants."""

    def __init__(self, file):
        self.file, self.members, self.bytes = file, 0, 0

    def check(self, name, size, special):
        self.members, self.bytes = self.members + 1, self.bytes + size
        if self.members > MOST_MEMBERS or self.bytes > MOST_BYTES:
            raise bad_archive(self.file, f"it unpacks to more than {MOST_MEMBERS} files or {MOST_BYTES} bytes")
        if special:
            raise bad_archive(self.file, f"{shown(name)} is a link, a device or sparse, not a plain file")
        if name.strip("./") and not is_file_name(name, 0):
            raise bad_archive(self.file, f"the name {shown(name)} leaves its folder, or is none")


@contextmanager
def reading(file, name=None):
    """Whatever the archive modules raise at broken files  ->  the ValueError that names the file"""
    try:
        yield
    except BROKEN as error:
        where = f" at {shown(name)}" if name else ""
        raise bad_archive(file, f"cannot be read{where} ({type(error).__name__}: {str(error)[:200]})") from None
    except OSError as error:
        if error.errno is not None:                          # the disk's
            raise
        raise bad_archive(file, f"cannot be read ({error})") from None      # bz2's: damaged data
    except RuntimeError as error:                            # zipfile: a password is needed
        raise bad_archive(file, str(error)[:200]) from None


def bad_archive(file, what):
    """The ValueError for an archive that is damaged or hostile."""
    return ValueError(f"{file}: {what}.\n  Download it again from the official page; nothing of it was taken on trust.")
