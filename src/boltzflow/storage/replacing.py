"""An earlier run, set aside while another begins in its folder, and put back where that one comes to nothing.

The earlier run goes into a folder inside its own, by renaming alone. The name of that folder tells what a process that
was killed had done: `.replacing` holds a part of the earlier run, of which the rest is in its place and nothing is new;
`.replaced` holds all of it, and what lies outside is of the new run; `.discarded` is to be removed.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from boltzflow.storage import run_folder

_PART = ".replacing"
_WHOLE = ".replaced"
_DISCARDED = ".discarded"


def set_aside(directory: Path) -> None:
    """Move the run in this folder, or the seeds in it, out of the way of another; do nothing where there is none."""
    discard(directory)
    held = run_folder.contents(directory)
    if not held:
        return
    for path in held:
        _move(path, directory / _PART / path.relative_to(directory))
        if path.parent != directory:
            with contextlib.suppress(OSError):  # files of somebody's own stay in the folder of a seed
                path.parent.rmdir()
    os.rename(directory / _PART, directory / _WHOLE)


def is_aside(directory: Path) -> bool:
    """Whether an earlier run is set aside in this folder."""
    return _is_folder(directory / _WHOLE) or _is_folder(directory / _PART)


def put_back(directory: Path) -> None:
    """Remove the beginnings of the new run, and move the earlier one back into its place."""
    if _is_folder(directory / _WHOLE):
        run_folder.clear(directory)
        os.rename(directory / _WHOLE, directory / _PART)
    for path in list(_entries(directory / _PART)):
        _move(path, directory / path.relative_to(directory / _PART))
    shutil.rmtree(directory / _PART, ignore_errors=True)


def discard(directory: Path) -> None:
    """Remove the earlier run that is set aside."""
    shutil.rmtree(directory / _DISCARDED, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.rename(directory / _WHOLE, directory / _DISCARDED)
        shutil.rmtree(directory / _DISCARDED, ignore_errors=True)


def _entries(aside: Path) -> Iterator[Path]:
    """What was moved from the folder of a run, and from the folders of seeds in it."""
    for path in aside.iterdir() if _is_folder(aside) else ():
        if not run_folder.is_seed_folder(path):
            yield path
        elif _is_folder(path):
            yield from path.iterdir()


def _is_folder(path: Path) -> bool:
    """Whether this is a folder, and no link to one outside."""
    return path.is_dir() and not path.is_symlink()


def _move(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    os.rename(path, to)
