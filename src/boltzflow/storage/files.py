"""Arrays and a record in one file that is there whole or not at all, and says when it has been damaged.

A file is an `.npz`: NumPy arrays, and the record as JSON with the SHA-256 of all arrays. Reading one executes nothing.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from boltzflow.errors import InputError

_RECORD, _DIGEST = "record", "sha256"


def write(path: Path, arrays: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Writes the file whole."""
    plain = {name: np.asarray(value) for name, value in arrays.items()}
    text = json.dumps({**record, _DIGEST: _digest(plain)}).encode()
    plain[_RECORD] = np.frombuffer(text, np.uint8)
    replace_whole(path, lambda file: np.savez(file, allow_pickle=False, **plain))


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and record. Raises `InputError` where there is no such file, or it is not what was written."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        record = json.loads(arrays.pop(_RECORD).tobytes())
        if not isinstance(record, dict) or record.pop(_DIGEST) != _digest(arrays):
            raise ValueError("its arrays are not those that were written")
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    return arrays, record


def replace_whole(path: Path, write_to: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file so that it is there whole or not at all, whenever the machine stops."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        write_to(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Writes a text file such that a reader finds the old text or the new one, never a part."""
    replace_whole(path, lambda file: file.write(text.encode("utf-8")))


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
