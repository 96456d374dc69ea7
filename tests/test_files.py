"""Files of arrays, text and metrics: content of any kind, and a disk that fills."""

import errno
import io
import json
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from boltzflow.errors import InputError
from boltzflow.report.report import Report
from boltzflow.storage import files, run_folder

RECORD = {"config": {"width": 4}}
ARRAYS = {"a": np.arange(50.0), "b": np.asfortranarray(np.float32([[1, 2], [3, 4]])), "c": np.float64(3.0)}


def header(shape, dtype="<f8"):
    """The start of an `.npy` file."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def archive(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)


def test_arrays_come_back_in_shape_and_type(tmp_path):
    files.write(tmp_path / "run.npz", ARRAYS, RECORD)
    arrays, record = files.read(tmp_path / "run.npz")
    assert record == {"format": files.FORMAT, **RECORD}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert (arrays[name].dtype, arrays[name].flags.writeable) == (array.dtype, True)
    with np.load(tmp_path / "run.npz") as file:  # it is a plain file of NumPy
        assert set(file.files) == {*ARRAYS, "record"}


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((10**12,), "<f8"),
        ((10**30,), "<f8"),
        ((2**40, 2**40), "|u1"),
        ((-1,), "<f8"),
        ((-1, -8), "<f8"),
        ((10**12,), "|S0"),
        ((1,), "|O"),
        ((10**30, 0), "<f8"),
    ],
)
def test_a_header_that_promises_more_than_there_is(tmp_path, shape, dtype):
    archive(tmp_path / "run.npz", {"a": header(shape, dtype) + bytes(8)})
    refused_in_little_memory(tmp_path / "run.npz")


def refused_in_little_memory(path):
    tracemalloc.start()
    with pytest.raises(InputError, match=r"run.npz is damaged: ") as raised:
        files.read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23 and "\n" not in str(raised.value)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_bomb_of_zeros_is_not_inflated(tmp_path, compression):
    archive(tmp_path / "run.npz", {"a": header((2**24,), "|u1") + bytes(2**24)}, compression)
    assert (tmp_path / "run.npz").stat().st_size < 2**17
    refused_in_little_memory(tmp_path / "run.npz")


def test_members_that_share_their_bytes_are_refused(tmp_path):
    """A thousand entries of the directory for one member of a megabyte."""
    archive(tmp_path / "run.npz", {"a": header((2**20,), "|u1") + bytes(2**20)})
    content = (tmp_path / "run.npz").read_bytes()
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry = content[start:end]
    tail = bytearray(content[end:])
    tail[8:12] = (1000).to_bytes(2, "little") * 2
    tail[12:16] = (1000 * len(entry)).to_bytes(4, "little")
    (tmp_path / "run.npz").write_bytes(content[:start] + 1000 * entry + tail)
    assert len(zipfile.ZipFile(tmp_path / "run.npz").infolist()) == 1000
    refused_in_little_memory(tmp_path / "run.npz")


def test_an_encrypted_member_is_refused(tmp_path):
    files.write(tmp_path / "run.npz", ARRAYS, RECORD)
    content = bytearray((tmp_path / "run.npz").read_bytes())
    for mark, place in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        content[content.index(mark) + place] |= 1
        (tmp_path / "run.npz").write_bytes(content)
        refused_in_little_memory(tmp_path / "run.npz")


def test_a_record_that_is_nested_too_deep_is_refused(tmp_path):
    text = np.frombuffer(("[" * 100_000 + "]" * 100_000).encode(), np.uint8)
    files.write_arrays(tmp_path / "run.npz", {"record": text})
    with pytest.raises(InputError, match="is damaged"):
        files.read(tmp_path / "run.npz")
    with pytest.raises(InputError, match="could not be read"):
        Report.from_json("[" * 100_000 + "]" * 100_000)


# --- a disk that fills ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [lambda path: files.write_text(path, "new"), lambda path: files.write(path, {}, {})])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch, write, failure):
    def fail(descriptor):
        raise failure

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(failure)):
        write(tmp_path / "file")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "old"}


@pytest.mark.parametrize("room", [0, 5])  # bytes
def test_a_row_of_metrics_is_written_whole_or_not_at_all(tmp_path, room):
    resource = pytest.importorskip("resource")
    run_folder.append_metrics(tmp_path, {"step": 1})
    size = (tmp_path / "metrics.jsonl").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, before[1]))
    try:
        with pytest.raises(OSError):
            run_folder.append_metrics(tmp_path, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "metrics.jsonl").stat().st_size == size
    run_folder.append_metrics(tmp_path, {"step": 3})
    assert run_folder.read_metrics(tmp_path) == [{"step": 1}, {"step": 3}]


# --- text of any kind -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "runs/😀",
        'a "quoted" \\ path',
        "two\nlines\r\ttab",
        "\x7f\x00\x1b\x85\u2028",
        "é\u0301ℝ",
        "{[m/s]}",
        "'''",
        "x" * 9999,
    ],
)
def test_any_text_comes_back_from_the_record(tmp_path, text):
    record = run_folder.RunRecord(text, {}, 0, run_folder.Config(), text, "0", f"boltzflow run {text}", "1")
    run_folder.open_folder(tmp_path, record)
    assert run_folder.read_record(tmp_path) == record
    assert text in (tmp_path / "config.toml").read_text() or not text.isprintable() or "\\" in text


def test_a_byte_that_is_no_text_is_replaced_in_the_record(tmp_path):
    odd = os.fsdecode(b"runs/\xff")
    record = run_folder.RunRecord("t", {}, 0, run_folder.Config(), command=f"boltzflow run --out {odd}")
    run_folder.open_folder(tmp_path / odd, record)
    assert run_folder.read_record(tmp_path / odd).command == "boltzflow run --out runs/\N{REPLACEMENT CHARACTER}"
    with files.locked(tmp_path / odd):
        files.write_text(tmp_path / odd / "report.json", json.dumps(odd, ensure_ascii=False))
    assert json.loads((tmp_path / odd / "report.json").read_text()) == odd
