import gzip
import math
import os
import struct
import tracemalloc

import numpy as np
import pytest

from kerastk.datasets import stored
from kerastk.datasets.idx import IDX, TYPES, read_idx
from kerastk.errors import DataError

CODES = {np.dtype(name).newbyteorder("="): code for code, name in TYPES.items()}


def header(code, *sizes):
    return struct.pack(f">2BBB{len(sizes)}I", 0, 0, code, len(sizes), *sizes)


def idx(values):
    """The bytes of an IDX file."""
    return header(CODES[values.dtype], *values.shape) + values.astype(values.dtype.newbyteorder(">")).tobytes()


def numbers(dtype, *shape):
    """Numbers of all sizes that a type has."""
    random = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return random.normal(scale=1e6, size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


IMAGES = numbers("uint8", 7, 5, 4)
GOOD = idx(IMAGES)
SIZE = 7 * 5 * 4


@pytest.fixture
def opened(tmp_path):
    def call(content, name="x-images-idx3-ubyte", limit=2**20):
        (tmp_path / name).write_bytes(content)
        return read_idx(tmp_path / name, limit=limit)

    return call


@pytest.mark.parametrize("piece", [1, 33, 2**22])
@pytest.mark.parametrize("shape", [(9,), (5, 3), (4, 3, 2), (3, 4, 5, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float32", "float64"])
def test_arrays_of_all_types_come_back_as_they_were(dtype, shape, piece, opened, monkeypatch):
    # In pieces smaller than a row, than all rows, and larger than all.
    monkeypatch.setattr(stored, "_PIECE", piece)
    values = numbers(dtype, *shape)
    for content in (idx(values), gzip.compress(idx(values))):
        found = opened(content)
        assert found.dtype.newbyteorder("=") == values.dtype
        assert found.shape == shape
        assert np.array_equal(found, values)


def test_whether_a_file_is_packed_is_told_by_its_bytes(opened):
    assert np.array_equal(opened(gzip.compress(GOOD), "plain-idx3-ubyte"), IMAGES)
    assert np.array_equal(opened(GOOD, "packed-idx3-ubyte.gz"), IMAGES)


def test_the_limit_is_one_of_bytes(opened):
    assert opened(GOOD, limit=SIZE).shape == IMAGES.shape
    for content in (GOOD, gzip.compress(GOOD)):
        with pytest.raises(DataError, match=r"announces uint8 of shape \(7, 5, 4\), 140 bytes; the limit is 139\."):
            opened(content, limit=SIZE - 1)


def flipped(data, place):
    place %= len(data)
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


PACKED = gzip.compress(GOOD, mtime=0)
TOLD = "announces uint8 of shape (7, 5, 4), 140 bytes"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is cut short: 0 bytes; an IDX file begins with a header of 8 or more."),
        (GOOD[:3], "is cut short: 3 bytes; an IDX file begins with a header of 8 or more."),
        (GOOD[:10], "is cut short: 10 bytes; its header alone has 16."),
        (b"\x89PNG\r\n\x1a\n", "is no IDX file: it begins with 89 50 4e 47; expected 00 00, type, dimensions."),
        (b"\0\1" + GOOD[2:], "is no IDX file: it begins with 00 01 08 03; expected 00 00, type, dimensions."),
        (header(10, 7, 5, 4) + bytes(SIZE), "has the unknown type code 10; IDX files have one of 8 (uint8), 9 (int8)"),
        (header(8), "has 0 dimensions; expected 1 to 4."),
        (b"\0\0\x08\xff" + bytes(2000), "has 255 dimensions; expected 1 to 4."),
        (header(8, 0, 5, 4), "holds nothing: its shape is (0, 5, 4); expected sizes of 1 or more."),
        (header(8, 7, 5, 0) + bytes(SIZE), "holds nothing: its shape is (7, 5, 0)"),
        (GOOD[:-1], f"{TOLD} after its header of 16, and is cut short: 139 are there."),
        (GOOD + b"\0", f"{TOLD} after its header of 16, and is too long: 141 are there."),
        (header(8, *[2**32 - 1] * 4), "bytes; the limit is 1,048,576."),
        (header(14, 2**31), "announces float64 of shape (2147483648,), 17,179,869,184 bytes; the limit is 1,048,576."),
        (PACKED[:12], "is cut short: its gzip ends before the header of an IDX file does."),
        (PACKED[:60], f"is cut short: its header {TOLD}, and only"),
        (PACKED[:-1], "is cut short: the last bytes of what it is packed in are missing."),
        (gzip.compress(GOOD[:-1], mtime=0), f"is cut short: its header {TOLD}, and only 139 are there."),
        (gzip.compress(GOOD + b"\0", mtime=0), f"is too long: its header {TOLD}, and more bytes follow."),
        (gzip.compress(GOOD[:9], mtime=0), "is cut short: 9 bytes; its header alone has 16."),
        (gzip.compress(b"", mtime=0), "is cut short: 0 bytes; an IDX file begins with a header of 8 or more."),
        (flipped(PACKED, len(PACKED) - 7), "CRC check failed"),
        (PACKED + b"rubbish", "Not a gzipped file"),
        (b"\x1f\x8b" + bytes(50), "Unknown compression method"),
        (PACKED[:10] + b"\x07" + PACKED[11:], "Error -3 while decompressing data: invalid block type."),
    ],
)
def test_each_kind_of_damage_is_one_line(content, message, refused):
    line = refused(content)
    assert "'x-images-idx3-ubyte'" in line
    assert message in line


def test_what_is_no_file_is_refused(tmp_path, within):
    with pytest.raises(DataError, match=r"cannot read '.*nothing-idx3-ubyte': No such file or directory\."):
        read_idx(tmp_path / "nothing-idx3-ubyte", limit=9)
    with pytest.raises(DataError, match="Is a directory"):
        read_idx(tmp_path, limit=9)
    with pytest.raises(DataError, match="embedded null byte"):
        read_idx("a\0b", limit=9)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe-idx3-ubyte")
        with pytest.raises(DataError, match="is no file, but a pipe or device"):
            within(30, lambda: read_idx(tmp_path / "pipe-idx3-ubyte", limit=9))


def peak(function):
    """The most bytes that were held at once."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_header_of_gigabytes_takes_no_memory(refused):
    # Within the limit, but the file has not the bytes, and could not have them.
    gigabytes = header(8, 2**16, 2**15)
    lines = []

    def call(content):
        lines.append(refused(content, limit=2**40))

    assert peak(lambda: call(gigabytes + bytes(100))) < 2**20
    assert peak(lambda: call(gzip.compress(gigabytes + bytes(100)))) < 2**20
    assert "cut short: 100 are there" in lines[0]
    assert "the limit is 268,435,456 for a packed file of its size." in lines[1]


def test_of_a_bomb_no_more_is_unpacked_than_was_announced(refused):
    # Its end is damaged: who reads on that far finds that, and not that it is too long.
    bomb = flipped(gzip.compress(GOOD + bytes(2**26)), -3)
    assert len(bomb) < 2**17
    lines = []
    assert peak(lambda: lines.append(refused(bomb))) < 2**20
    assert lines == [f"'x-images-idx3-ubyte' is too long: its header {TOLD}, and more bytes follow."]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train-images-idx3-ubyte", True), ("train-images-idx3-ubyte.gz", True), ("t10k-labels.idx1-ubyte", True),
        ("x.idx", True), ("X.IDX3-UBYTE.GZ", True), ("idx", False), ("idx3-ubyte", False), ("index.html", False),
        ("x-idx3-ubyte.zip", False), ("x.idx.png", False),
    ],
)  # fmt: skip
def test_the_names_of_idx_files(name, expected):
    assert bool(IDX.search(name)) == expected


def test_mnist_is_read(shared):
    folder = shared / "data" / "mnist"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    images = read_idx(folder / "train-images-idx3-ubyte.gz", limit=2**30)
    labels = read_idx(folder / "train-labels-idx1-ubyte.gz", limit=2**30)
    assert (images.shape, images.dtype) == ((60_000, 28, 28), np.uint8)
    # The mean of MNIST's pixels that everybody normalizes by.
    assert math.isclose(images.mean() / 255, 0.1307, abs_tol=1e-4)
    assert labels[:6].tolist() == [5, 0, 4, 1, 9, 2]
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
