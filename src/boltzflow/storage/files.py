"""Files that are there whole or not at all, arrays that are known to be undamaged, and folders with one writer.

Arrays and their record are one `.npz` file: NumPy arrays, and the record as JSON with a SHA-256 of all arrays. Reading
one executes nothing, and takes no more memory than the file has bytes.
"""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from boltzflow.errors import InputError
from boltzflow.numerics.validation import shown

try:
    import fcntl
except ImportError:  # Windows: folders are not locked there
    fcntl = None  # type: ignore[assignment]

FORMAT = 7
"""Of checkpoints and snapshots. A file of another format is refused."""
_RECORD = "record"
_DIGEST = "sha256"
_FAILURES = (OSError, ValueError, EOFError, LookupError, AttributeError, OverflowError, RuntimeError, TypeError)
_ENCRYPTED = 0x1  # the flag of a member of a zip file


def write(path: Path, arrays: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Write arrays and a record as one file, whole."""
    plain = {name: np.asarray(value) for name, value in arrays.items()}
    text = json.dumps({"format": FORMAT, **record, _DIGEST: digest(plain)}).encode()
    plain[_RECORD] = np.frombuffer(text, np.uint8)
    write_arrays(path, plain)


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and record of a file.

    Raises:
        InputError: There is no such file, or its content is not what was written.
    """
    try:
        arrays = _read_arrays(path)
        record = json.loads(arrays.pop(_RECORD).tobytes())
        if not isinstance(record, dict) or record.pop(_DIGEST) != digest(arrays):
            raise ValueError("its arrays are not those that were written")
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (*_FAILURES, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    return arrays, record


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file that `write_arrays` wrote: its members are neither compressed nor encrypted.

    So they hold no more bytes than the file has. That is checked before anything is read, and the size that the header
    of an array states before the array is made.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            if member.flag_bits & _ENCRYPTED or member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"its member {member.filename!r} is compressed or encrypted")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("its members are larger than the file")
        return {member.filename.removesuffix(".npy"): _array(archive.read(member)) for member in members}


def _array(content: bytes) -> np.ndarray:
    """The array in the bytes of an `.npy` file."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array has the unknown version {version}")
    read_header = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
    shape, in_fortran_order, dtype = read_header(stream)
    start = stream.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError("the shape of an array does not fit its bytes")
    flat = np.frombuffer(content, dtype, offset=start)
    return flat.reshape(shape, order="F" if in_fortran_order else "C").copy()


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write NumPy arrays as an `.npz` file, whole."""
    _replace(path, lambda file: np.savez(file, allow_pickle=False, **dict(arrays)))


def write_text(path: Path, text: str) -> None:
    """Write a text file such that a reader finds the old text or the new one, never a part.

    What UTF-8 cannot hold (a byte of a file's name that is no text) is written as an escape, as JSON writes it.
    """
    _replace(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def append_text(path: Path, text: str) -> None:
    """Append to a text file all of `text` or, where the disk is full, nothing."""
    content = text.encode("utf-8")
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            if file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except BaseException:
            file.truncate(size)
            raise


def _replace(path: Path, write_to: Callable[[IO[bytes]], Any]) -> None:
    """Write a file that is there whole or not at all, whenever the machine stops."""
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            write_to(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # a full disk, an interruption
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of arrays with their names, types and shapes, in hexadecimal."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


# --- who may write where ----------------------------------------------------------------------------------------------


def folder_path(folder: Any) -> Path:
    """`folder` as a path; raises `InputError` for anything that is none."""
    if not isinstance(folder, (str, os.PathLike)):
        raise InputError(f"the folder must be a path, got {shown(folder)}")
    return Path(folder)


def check_writable(directory: Path) -> None:
    """Raise `InputError` unless the folder, or the nearest one above it that exists, can be written to."""
    nearest = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):  # os.access does not see read-only file systems
            pass
    except OSError as error:
        raise InputError(f"{directory} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes on this machine out of a folder; raise `InputError` where one is at work there.

    The lock is a file in the folder for temporary files. It is released when the process ends, however that happens.
    """
    name = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:16]
    with (Path(tempfile.gettempdir()) / f"boltzflow-{name}.lock").open("a") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"another process is at work in {directory}; wait for it, or use another folder"
                ) from None
        yield
