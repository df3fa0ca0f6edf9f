"""Files: written whole or not at all, known by their content, named so that they stay in their folder."""
import fcntl
import hashlib
import os
import socket
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

LONGEST = 150                # characters of a name; file systems take 255 bytes, and an ending may follow


@contextmanager
def atomic_file(path, mode="wb"):
    """Open a temporary file beside `path`; it takes the name `path` only once it is written and on the disk.

    On any error the old file stays as it was and the temporary one is removed.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # torch's zip writer replaces the OSError of a full disk by a RuntimeError about its position.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OSError(cause.errno, f"could not write {path}: {cause.strerror}. What stood there before is intact.\n"
                      f"  Make room or give another --output (the folder is {path.parent.absolute()})") from error
    finally:
        temporary.unlink(missing_ok=True)


def fingerprint(path):
    """SHA-256 of a file, as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def owned(folder):
    """One run at a time writes into a folder: around everything that does. ValueError names the run that holds it.

    The lock is the operating system's, on shared file systems too (fcntl), so that it ends with its process, however
    that ends. What stands in the file is only for people.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".owner", "a+", encoding="utf-8", errors="backslashreplace") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(f"{folder} belongs to a run that is going on: {file.read(1000).strip() or 'unknown'}.\n"
                             "  Wait for it, stop it, or choose another --output") from None
        except OSError:            # a file system without locks: nobody can be kept out
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, {' '.join(sys.argv)[:300]}\n")
        file.flush()
        yield


def writable(text):
    """A name, which may hold bytes that are no UTF-8  ->  the same for a text file, with escapes for these"""
    return text.encode("utf-8", "backslashreplace").decode()


def safe_name(text):
    """Any text, as a category's or a video's name out of data  ->  the name of one file or folder

    Letters and digits of ASCII, "_", "-", "~", "." and spaces stay, all else becomes %XX, so that the name never leaves
    its folder. Two texts never share a name: what is too long ends with "%-" and a digest, as no other name does.
    """
    name = quote(text, safe=" ", errors="surrogatepass")
    if name[:1] in (".", " "):
        name = f"%{ord(name[0]):02X}{name[1:]}"                   # hidden, "..", or trimmed by somebody
    if name[-1:] in (".", " "):
        name = f"{name[:-1]}%{ord(name[-1]):02X}"                 # Windows drops them
    if len(name) > LONGEST:
        return f"{name[:LONGEST - 34]}%-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
    return name or "%"
