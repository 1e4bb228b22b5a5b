"""IDX files, the format of MNIST: a short header and an array of numbers (http://yann.lecun.com/exdb/mnist).

Two zero bytes, a code for the type, the number of dimensions, their sizes as big-endian 32-bit numbers, and then the
numbers themselves, big-endian too. Files may be packed by gzip.
"""

import contextlib
import gzip
import math
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from kerastk.datasets.archive import MAX_RATIO
from kerastk.datasets.images import MAX_BYTES
from kerastk.datasets.stored import Stored, reading, regular
from kerastk.errors import DataError

# The endings of names: train-images-idx3-ubyte, train-images.idx3-ubyte.gz, x.idx.
IDX = re.compile(r"[-.]idx\d?(-[a-z0-9]+)?(\.gz)?$", re.IGNORECASE)
TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
MAX_DIMENSIONS = 4


def read_idx(path: str | os.PathLike, *, limit: int) -> np.ndarray:
    """The array in an IDX file, plain or packed by gzip; it must not be larger than `limit` bytes.

    >>> read_idx("train-images-idx3-ubyte.gz", limit=2**30).shape
    (60000, 28, 28)

    Raises:
        DataError: there is no such file, it is damaged, or larger than `limit`.
    """
    return stored_idx(Path(path), limit=limit).whole()


def stored_idx(path: Path, *, limit: int) -> Stored:
    """The array that an IDX file announces, not read yet. Raises as `read_idx`."""
    where = repr(str(path))
    with reading(where), regular(path) as file:
        there = os.fstat(file.fileno()).st_size
        packed = _is_packed(file)
        try:
            with gzip.open(file) if packed else contextlib.nullcontext(file) as content:
                head = content.read(4 + 4 * MAX_DIMENSIONS)
        except EOFError:
            raise DataError(f"{where} is cut short: its gzip ends before the header of an IDX file does.") from None
    shape, dtype = _header(head, where)
    start, size = 4 + 4 * len(shape), math.prod(shape) * dtype.itemsize
    told = f"{where} announces {dtype.name} of shape {shape}, {size:,} bytes"
    room = min(limit, max(MAX_BYTES, MAX_RATIO * there)) if packed else limit
    if size > room:
        raise DataError(f"{told}; the limit is {room:,}{' for a packed file of its size' if room < limit else ''}.")
    if not packed and there != start + size:
        wrong = "cut short" if there < start + size else "too long"
        raise DataError(f"{told} after its header of {start}, and is {wrong}: {there - start:,} are there.")
    return Stored(path.name, where, shape, dtype, start, lambda: _opened(path))


def _header(head: bytes, where: str) -> tuple[tuple[int, ...], np.dtype]:
    if len(head) < 4:
        raise DataError(f"{where} is cut short: {len(head)} bytes; an IDX file begins with a header of 8 or more.")
    if head[:2] != b"\0\0":
        raise DataError(
            f"{where} is no IDX file: it begins with {head[:4].hex(' ')}; expected 00 00, type, dimensions."
        )
    code, count = head[2], head[3]
    if code not in TYPES:
        known = ", ".join(f"{each} ({np.dtype(name).name})" for each, name in TYPES.items())
        raise DataError(f"{where} has the unknown type code {code}; IDX files have one of {known}.")
    if not 1 <= count <= MAX_DIMENSIONS:
        raise DataError(f"{where} has {count} dimensions; expected 1 to {MAX_DIMENSIONS}.")
    if len(head) < 4 + 4 * count:
        raise DataError(f"{where} is cut short: {len(head)} bytes; its header alone has {4 + 4 * count}.")
    shape = struct.unpack(f">{count}I", head[4 : 4 + 4 * count])
    if 0 in shape:
        raise DataError(f"{where} holds nothing: its shape is {shape}; expected sizes of 1 or more.")
    return shape, np.dtype(TYPES[code])


def _is_packed(file: IO[bytes]) -> bool:
    """Whether gzip packed the file, whatever its name says."""
    start = file.read(2)
    file.seek(0)
    return start == b"\x1f\x8b"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with regular(path) as file:
        if not _is_packed(file):
            yield file
            return
        with gzip.open(file) as content:
            yield content
