"""Files: written whole or not at all, and known by their content."""
import hashlib
import os
from contextlib import contextmanager
from pathlib import Path


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
