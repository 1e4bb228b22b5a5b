"""Arrays that are announced and not read yet: in files of NumPy (.npy, .npz), in other files, and in memory.

A file may come from anybody. What its header says is held against the bytes that are there before memory is taken, no
more is unpacked than was announced, and nothing is ever unpickled.
"""

import contextlib
import io
import math
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from kerastk.datasets.archive import MAX_RATIO
from kerastk.datasets.files import open_nonblocking
from kerastk.datasets.images import MAX_BYTES
from kerastk.errors import DataError

MAX_MEMBERS = 1000
# NumPy itself reads no longer header of an array that it does not trust.
_MAX_HEADER = 10_000
_MAX_DIMENSIONS, _MAX_SIDE = 32, 2**48
# Rows are read in pieces of about so many bytes.
_PIECE = 2**22
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Stored:
    """An array in a file, not read yet: `start` bytes stand before its numbers.

    `name` is what its rows are called by, `where` what errors call it. `open` gives the file, unpacked.
    """

    name: str
    where: str
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    fortran: bool = False

    @property
    def size(self) -> int:
        """The bytes of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize

    def blocks(self, out: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """The rows in their order, some at a time; views of `out` (of this shape and type), where it is given.

        Raises:
            DataError: the file is damaged, or holds fewer or more bytes than it announced.
        """
        if self.fortran:
            turned = self._turned().whole().T
            if out is not None:
                out[...] = turned
            yield turned if out is None else out
            return
        step = max(1, _PIECE * self.shape[0] // max(1, self.size))
        done = 0
        with reading(self.where), self.open() as file:
            file.seek(self.start)
            for first in range(0, self.shape[0], step):
                rows = min(step, self.shape[0] - first)
                block = np.empty((rows, *self.shape[1:]), self.dtype) if out is None else out[first : first + rows]
                done += self._fill(file, block, done)
                yield block
            # One byte more: what follows the numbers is told, and a checksum at the end is looked at.
            if self._read(file, done, bytearray(1)):
                raise DataError(f"{self.where} is too long: its header {self._announced()}, and more bytes follow.")

    def whole(self) -> np.ndarray:
        """All of it. Raises as `blocks`."""
        found = np.empty(self.shape, self.dtype)
        for block in self.blocks(found):
            del block
        return found

    def _turned(self) -> "Stored":
        return Stored(self.name, self.where, self.shape[::-1], self.dtype, self.start, self.open)

    def _fill(self, file: IO[bytes], block: np.ndarray, done: int) -> int:
        view = memoryview(block.reshape(-1).view(np.uint8))
        filled = 0
        while filled < len(view):
            count = self._read(file, done + filled, view[filled:])
            if not count:
                raise self._short(done + filled)
            filled += count
        return filled

    def _read(self, file: IO[bytes], done: int, view: memoryview | bytearray) -> int:
        try:
            return file.readinto(view)
        except EOFError:
            # So gzip and zip say that the packed bytes end too soon.
            raise self._short(done) from None

    def _short(self, done: int) -> DataError:
        if done == self.size:
            return DataError(f"{self.where} is cut short: the last bytes of what it is packed in are missing.")
        return DataError(f"{self.where} is cut short: its header {self._announced()}, and only {done:,} are there.")

    def _announced(self) -> str:
        return f"announces {self.dtype.name[:40]} of shape {self.shape}, {self.size:,} bytes"


@dataclass(frozen=True)
class InMemory:
    """An array that is there already, as `Stored` has one."""

    name: str
    where: str
    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the array."""
        return self.array.dtype

    def blocks(self, out: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """See `Stored.blocks`."""
        if out is not None:
            out[...] = self.array
            yield out
            return
        step = max(1, _PIECE * len(self.array) // max(1, self.array.nbytes))
        for first in range(0, len(self.array), step):
            yield self.array[first : first + step]

    def whole(self) -> np.ndarray:
        """The array."""
        return self.array


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Makes a DataError of whatever the readers of files raise; `where` is what the file is called."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        # Damaged bytes make gzip, zipfile and NumPy raise anything: zlib.error, NotImplementedError, RecursionError.
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"cannot read {where}: {reason.rstrip('.')}.") from None


@contextlib.contextmanager
def regular(path: Path) -> Iterator[IO[bytes]]:
    """An open file that is no folder, pipe or device. Raises OSError, ValueError, or DataError."""
    with open(path, "rb", opener=open_nonblocking) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DataError(f"{str(path)!r} is no file, but a pipe or device; give a file of arrays.")
        yield file


def npy(path: Path) -> Stored:
    """The array in a .npy file. Raises DataError."""
    where = repr(str(path))
    with reading(where), regular(path) as file:
        found = _array(file, path.name, where, lambda: regular(path))
        there = os.fstat(file.fileno()).st_size - found.start
        if there != found.size:
            raise DataError(
                f"{where} is {'cut short' if there < found.size else 'too long'}: its header {found._announced()}, and "
                f"{there:,} are there."
            )
    return found


def npz(path: Path) -> dict[str, Stored]:
    """The arrays in a .npz file by their names, none read yet.

    Raises:
        DataError: the file is damaged, holds what is no array, or unpacks to more than 256 MiB and a hundred times its
            size.
    """
    where, found = repr(str(path)), {}
    with reading(where), regular(path) as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise DataError(f"{where} holds {len(members):,} members; the limit is {MAX_MEMBERS:,}.")
        room = max(MAX_BYTES, MAX_RATIO * os.fstat(file.fileno()).st_size)
        if sum(member.file_size for member in members) > room:
            raise DataError(
                f"{where} unpacks to more than {room / 2**30:.2f} GiB, too much for its size; if you trust it, save it "
                "again by numpy.savez, which does not compress."
            )
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name == member.filename or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(f"{where} holds {name[:40]!r}, which is no array; numpy.savez writes arrays alone.")
            if name in found:
                raise DataError(f"{where} holds the array {name[:40]!r} twice.")
            inside = f"{where}, array {name[:40]!r}"
            with reading(inside), archive.open(member) as content:
                array = _array(content, f"{path.name}/{name}", inside, _member(path, member.filename))
            if member.file_size != array.start + array.size:
                raise DataError(
                    f"{inside} is damaged: its header {array._announced()}, and "
                    f"{max(0, member.file_size - array.start):,} are there."
                )
            found[name] = array
    if not found:
        raise DataError(f"{where} holds no arrays.")
    return found


def _member(path: Path, name: str) -> Callable[[], AbstractContextManager[IO[bytes]]]:
    @contextlib.contextmanager
    def opened() -> Iterator[IO[bytes]]:
        with regular(path) as file, zipfile.ZipFile(file) as archive, archive.open(name) as content:
            yield content

    return opened


def _array(file: IO[bytes], name: str, where: str, opened: Callable[[], AbstractContextManager[IO[bytes]]]) -> Stored:
    """The array that a header of NumPy announces."""
    # A header may say that it is gigabytes long: of the file no more is read than a header that is taken.
    start = io.BytesIO(file.read(_MAX_HEADER + 16))
    try:
        version = np.lib.format.read_magic(start)
        if version not in _HEADERS:
            raise ValueError(f"version {version[0]}.{version[1]}; expected 1.0 or 2.0")
        shape, fortran, dtype = _HEADERS[version](start)
    except Exception as error:
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise DataError(f"{where} is no array as numpy.save writes it: {reason.rstrip('.')}.") from None
    if dtype.hasobject:
        raise DataError(
            f"{where} holds Python objects, which are never unpickled. Images of different sizes cannot be one array; "
            "give a folder of photos and --image-size and --resize."
        )
    if len(shape) > _MAX_DIMENSIONS or not all(0 <= size <= _MAX_SIDE for size in shape) or not dtype.itemsize:
        raise DataError(f"{where} is damaged: its header announces {dtype.name[:40]} of shape {str(shape)[:80]}.")
    return Stored(name, where, tuple(map(int, shape)), dtype, start.tell(), opened, fortran and len(shape) > 1)
