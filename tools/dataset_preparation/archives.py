"""Downloaded archives -> a data set in its place, for tools/prepare_data.py.

In: a folder of .zip and .tar(.gz, .bz2, .xz) files, unpacked parts of them or single files; the rules that say which
file of them belongs where. Out: those files below the output folder, each of them whole or not there at all, so that an
interrupted run continues. Archives are not trusted: a destination is made by a rule of ours, never taken from a name,
only plain files are taken, and links are followed neither in the downloads nor in the output.
"""
import bz2
import errno
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dataloaders.images import real_path
from dataloaders.json_values import is_file_name, shown

OPENERS = {".tar": open, ".tgz": gzip.open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
LARGEST_FILE = 2 ** 31       # bytes; COCO's annotations, the largest, have some 500 million
MOST_BYTES = 2 ** 39         # that one archive may unpack to, used or not: what is skipped is decompressed, too
LARGEST_HEADER = 2 ** 24     # bytes; a tar's header may ask for gigabytes
LONGEST_END = 2 ** 24        # what may follow the end of a tar
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError,
          struct.error, UnicodeError, RuntimeError, IndexError)      # RuntimeError: a password is needed


class Member(NamedTuple):
    """A file of an archive: <archive>/<its name there>, its size, how to open it; plain: no link, no device"""
    name: str
    size: int
    open: object
    plain: bool = True


@dataclass
class Arranged:
    """What became of the members: written, there already, wanted by no rule; examples: {file: one of the latter}

    places: those that a member has come to in this run
    """
    written: int = 0
    kept: int = 0
    unused: int = 0
    examples: dict = field(default_factory=dict)
    places: set = field(default_factory=set)

    def leave(self, file, name):
        self.unused += 1
        self.examples.setdefault(file.name, name)


def arrange(folder, output, destination, bar):
    """Put every file that a rule wants into its place.

    destination: name of a member, with '/', -> path below output or None; bar: tqdm, counts files  ->  Arranged
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"--archives {folder}: no such folder.\n  Name the folder with the downloaded files.")
    result = Arranged()
    for file in sorted(Path(parent, name) for parent, _, names in os.walk(folder) for name in names):
        if not stat.S_ISREG(file.lstat().st_mode):
            result.leave(file, "a link or no regular file, which is not read; put the file itself here")
            continue
        with reading(file):
            for member in checked(members(file, folder), file):
                target = destination(member.name)
                if target is None:
                    result.leave(file, member.name)
                else:
                    place(member, output, target, file, result)
                bar.update()
    return result


def members(file, folder):
    """Yields the Members of a zip, of a tar, or of a file by itself, whose name is its path below the folder."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes[-1:] == [".zip"]:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
                if not info.is_dir() or not plain:
                    yield Member(f"{file.stem}/{info.filename}", info.file_size, lambda i=info: archive.open(i), plain)
    elif suffixes[-1:] in ([".tar"], [".tgz"]) or suffixes[-2:-1] == [".tar"] and suffixes[-1] in OPENERS:
        yield from tar_members(file, OPENERS[suffixes[-1]])
    else:
        yield Member(file.relative_to(folder).as_posix(), file.stat().st_size, lambda: open(file, "rb"))


def tar_members(file, opener):
    """The Members of a tar, read once from front to back. tarfile takes a cut between two of them for the end."""
    with opener(file, "rb") as content, tarfile.open(fileobj=(stream := Bounded(content)), mode="r:") as archive:
        for info in archive:
            if not info.isdir():
                yield Member(f"{file.name.partition('.')[0]}/{info.name.removeprefix('./')}", info.size,
                             lambda i=info: archive.extractfile(i), info.isreg() and not info.issparse())
            archive.members = []                     # else the list of all of them grows with the archive
        if stream.last != bytes(tarfile.BLOCKSIZE):
            raise bad_archive(file, "it is truncated: the end marker is missing")
        if content.read(LONGEST_END + 1)[LONGEST_END:]:              # asks for the checksum behind the last member
            raise bad_archive(file, "something follows the end of the archive")


class Bounded:
    """A file of which never much is read at once; `last`: what was read last."""

    def __init__(self, file):
        self.file, self.last, self.seek, self.tell = file, b"", file.seek, file.tell

    def read(self, size):
        if not 0 <= size <= LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self.last = self.file.read(size)
        return self.last


def checked(found, file):
    """The same members, but none that an honest archive of a data set does not have, wanted or not."""
    total = 0
    for member in found:
        total += member.size + tarfile.BLOCKSIZE             # also of empty files there are not too many
        if total > MOST_BYTES:
            raise bad_archive(file, f"it unpacks to more than {MOST_BYTES} bytes")
        if not member.plain:
            raise bad_archive(file, f"{shown(member.name)} is a link, a device or sparse, not a plain file")
        if not is_file_name(member.name, 0) or "//" in member.name:          # of an absolute name
            raise bad_archive(file, f"the name {shown(member.name)} leaves its folder, or is none")
        yield member


def place(member, output, target, source, result):
    """Write one member, unless a file of its size is there; never over another file, nor through a link."""
    path = output / target
    if not real_path(path.parent).is_relative_to(real_path(output)):
        raise ValueError(f"{path.parent}: leads out of {output} by a link.\n  Remove the link, or choose another "
                         "--output.")
    if member.size > LARGEST_FILE:
        raise bad_archive(source, f"{shown(member.name)} has {member.size} bytes, more than {LARGEST_FILE}")
    again = target in result.places
    result.places.add(target)
    if path.exists():
        if again and path.is_file() and path.stat().st_size == member.size and not same_content(member, path):
            raise ValueError(f"{path}: {shown(member.name)} of {source} has another content than what came before it.\n"
                             "  Nothing was replaced. Take one of the two away, and repeat.")
        if not path.is_file() or path.stat().st_size != member.size:
            raise ValueError(f"{path}: has {path.stat().st_size} bytes, but {shown(member.name)} of {source} has "
                             f"{member.size}.\n  Nothing was replaced. Remove the wrong one of the two, and repeat.")
        result.kept += 1
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if member.size > free:
        raise OSError(errno.ENOSPC, f"{shown(member.name)} needs {member.size} bytes, {free} are free. Choose a larger "
                      "disk for --output; what is unpacked already is not unpacked again", str(output))
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with member.open() as content, open(part, "xb") as file:
        shutil.copyfileobj(content, file)
    if part.stat().st_size != member.size:
        raise bad_archive(source, f"{shown(member.name)} does not have the {member.size} bytes that are announced")
    os.replace(part, path)
    result.written += 1


def same_content(member, path):
    with member.open() as one, open(path, "rb") as other:
        return all(part == other.read(len(part)) for part in iter(lambda: one.read(2 ** 20), b""))


@contextmanager
def reading(file):
    """Whatever the archive modules raise at broken files  ->  the ValueError that names the file"""
    try:
        yield
    except (ValueError, *BROKEN) as error:               # ValueError: also of tarfile, about a header
        if isinstance(error, ValueError) and "\n  " in str(error):                         # our own
            raise
        raise bad_archive(file, f"cannot be read ({type(error).__name__}: {str(error)[:200]})") from None
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):      # of the disk; None: of gzip and bz2, EINVAL: before the file
            raise
        raise bad_archive(file, f"cannot be read ({error})") from None


def bad_archive(file, what):
    """The ValueError for an archive that is damaged or hostile."""
    return ValueError(f"{file}: {what}.\n  Download it again from the official page; nothing of it was taken on trust.")
