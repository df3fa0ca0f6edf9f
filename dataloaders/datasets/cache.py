"""What an index parsed or counted once, as arrays in its cache folder: never trusted, never needed."""
import logging
import os
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)

# What NumPy and zipfile raise on damaged files; MemoryError: a length that nobody wrote, RuntimeError: "encrypted".
UNREADABLE = (OSError, EOFError, LookupError, ValueError, TypeError, ArithmeticError, RuntimeError, MemoryError,
              zipfile.BadZipFile, zlib.error, struct.error)


def cached(folder, name, key, names, read):
    """folder or None (no cache), name of the file there, what its content follows from, names of the arrays, what
    makes them  ->  {name: array}"""
    if folder is None:
        return read()
    cache = Path(folder) / f"{name}.npz"
    tables = read_cache(cache, key, names)
    if tables is None:
        tables = read()
        write_cache(cache, key, tables)
    return tables


def read_cache(cache, key, names):
    """path, key of the content, names  ->  {name: array}, None where there is no cache, an old one or a damaged one"""
    if not cache.is_file():
        return None
    try:
        with np.load(cache, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            return {name: stored[name] for name in names}
    except UNREADABLE as error:
        log.warning("cache %s is damaged (%s); it is built again", cache, error)
        return None


def write_cache(cache, key, tables):
    """Written beside its place and moved there, so that no other process ever reads half a file."""
    temporary = None
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache.parent, suffix=".tmp", delete=False) as file:
            temporary = file.name
            np.savez(file, key=np.array(key), **tables)
        os.replace(temporary, cache)
    except OSError as error:
        log.warning("cache %s could not be written (%s); the next start reads everything again", cache, error)
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
