"""Rows of numbers kept by the SHA-256 of the photo that they belong to: what the activation cache is made of.

A store is a folder of its own, named by a hash over everything that its rows depend on but the photo. It only grows:
`rows.bin` holds rows of one shape and type, `index.bin` a record for each (SHA-256 of the photo, CRC-32 of the row).
Rows are flushed to the disk before their records, so a record never promises what is not there; what a killed writer
left without a record is cut off by the next one. One process writes at a time, any number read.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from kerastk.errors import KerastkError
from kerastk.storage import cache_folder, write_atomic

FORMAT = 1
# On the disk bfloat16 is kept as uint16: NumPy has no such type of its own.
DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_NAME = re.compile("[0-9a-f]{32}")
_REMOVED = re.compile(r"\.[0-9a-f]{32}\.\d+")
_RECORD = np.dtype([("sha256", "V32"), ("crc", "<u4")])


def default_folder() -> Path:
    """Where stores are kept where nothing else is said."""
    return cache_folder() / "activations"


def folder_of(cache: str) -> Path | None:
    """The folder that `auto` or a folder's name stands for; None for `off`."""
    return {"auto": default_folder(), "off": None}.get(cache, Path(cache))


class Overflow(KerastkError):
    """A value is not finite in the store's type."""

    def __init__(self, dtype: str):
        super().__init__(f"the frozen network gives values beyond {dtype}; try --precision float32 or other weights.")


class Store:
    """Rows of one shape and type by SHA-256, on the disk; held open, it is not thrown out.

    `described` is all that the rows depend on, plain values by name; its hash names the folder.

    >>> store = Store(folder, {"base": "mobilenet_v2"}, (14, 14, 96), "float16")
    >>> with store.writing():
    ...     store.append(hashes, rows)
    >>> store.gather(store.places(hashes))
    """

    def __init__(self, root: Path, described: dict[str, Any], shape: Sequence[int], dtype: str):
        described = {"format": FORMAT, **described, "shape": list(shape), "dtype": dtype}
        text = json.dumps(described, sort_keys=True)
        self.path = root / hashlib.sha256(text.encode()).hexdigest()[:32]
        self.shape, self.dtype = tuple(shape), dtype
        self.row_bytes = int(np.prod(shape)) * DTYPES[dtype].itemsize
        self._lock = _shared_lock(self.path)
        if not (self.path / "key.json").exists():
            write_atomic(self.path / "key.json", json.dumps(described, indent=1))
        self._trusted: set[bytes] = set()
        self._read_index()
        # The time of its last use, by which stores are thrown out.
        os.utime(self.path / "lock")

    @property
    def size(self) -> int:
        """Bytes of its rows on the disk."""
        return len(self._crc) * self.row_bytes

    @property
    def seconds_per_row(self) -> float | None:
        """What it took to compute a row, as somebody noted; None where nobody did."""
        with contextlib.suppress(OSError, ValueError):
            return float((self.path / "speed").read_text())
        return None

    @seconds_per_row.setter
    def seconds_per_row(self, seconds: float) -> None:
        write_atomic(self.path / "speed", f"{seconds:.6g}")

    @property
    def overflowed(self) -> bool:
        """Whether a value was once not finite in its type."""
        return (self.path / "overflow").exists()

    def missing(self, hashes: Sequence[str]) -> list[int]:
        """The positions in `hashes` of photos whose row is not there or is damaged, each photo once.

        Rows that this object has neither written nor read before are compared with their checksums.
        """
        wanted = {bytes.fromhex(each): number for number, each in reversed(list(enumerate(hashes)))}
        doubtful = [sha for sha in wanted if sha in self._place and sha not in self._trusted]
        with ThreadPoolExecutor() as pool:
            good = list(pool.map(self._is_whole, doubtful))
        for sha, whole in zip(doubtful, good, strict=True):
            if whole:
                self._trusted.add(sha)
            else:
                del self._place[sha]
        return sorted(number for sha, number in wanted.items() if sha not in self._place)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one writer; waits for another process to end its writing. Sees what that one has added."""
        with open(self.path / "rows.bin", "ab") as rows, open(self.path / "index.bin", "ab") as index:
            fcntl.flock(rows, fcntl.LOCK_EX)
            self._read_index()
            # What a killed writer left.
            rows.truncate(self.size)
            index.truncate(len(self._crc) * _RECORD.itemsize)
            self._files = rows, index
            try:
                yield
            finally:
                del self._files
                self._read_index()

    def append(self, hashes: Sequence[str], values: np.ndarray) -> None:
        """Add rows, (photos, *shape), and flush them to the disk. Only inside `writing`.

        Raises:
            Overflow: a value is not finite in the store's type; nothing is added.
            OSError: the disk is full, or a limit is reached.
        """
        try:
            rows = _converted(hashes, values, self.shape, self.dtype)
        except Overflow:
            # So that the next run need not find it out again.
            (self.path / "overflow").touch()
            raise
        rows = rows.view(np.uint8).reshape(len(rows), -1)
        records = np.zeros(len(rows), _RECORD)
        records["crc"] = [zlib.crc32(row) for row in rows]
        records["sha256"] = [np.void(bytes.fromhex(each)) for each in hashes]
        for file, content in zip(self._files, (rows, records), strict=True):
            file.write(content.data)
            file.flush()
            os.fsync(file.fileno())
        self._trusted.update(bytes.fromhex(each) for each in hashes)

    def places(self, hashes: Sequence[str]) -> np.ndarray:
        """The row number of each photo, (photos,) int64. Raises KeyError where one is missing."""
        return np.array([self._place[bytes.fromhex(each)] for each in hashes], np.int64)

    def gather(self, places: np.ndarray) -> np.ndarray:
        """The rows with these numbers, (rows, *shape)."""
        return self._map()[places].view(DTYPES[self.dtype])

    def close(self) -> None:
        """Let it go: it may be thrown out from now on."""
        self._mapped = None
        self._lock.close()

    def _map(self) -> np.ndarray:
        if self._mapped is None:
            raw = np.dtype(np.uint16) if self.dtype == "bfloat16" else DTYPES[self.dtype]
            self._mapped = np.memmap(self.path / "rows.bin", raw, "r", shape=(len(self._crc), *self.shape))
        return self._mapped

    def _read_index(self) -> None:
        index, rows = self.path / "index.bin", self.path / "rows.bin"
        records = np.frombuffer(index.read_bytes() if index.exists() else b"", np.uint8)
        count = min(len(records) // _RECORD.itemsize, (rows.stat().st_size if rows.exists() else 0) // self.row_bytes)
        found = records[: count * _RECORD.itemsize].view(_RECORD)
        self._crc, self._mapped = found["crc"], None
        # A row that was computed anew stands behind the damaged one.
        self._place = {sha.tobytes(): place for place, sha in enumerate(found["sha256"])}

    def _is_whole(self, sha: bytes) -> bool:
        place = self._place[sha]
        return zlib.crc32(self._map()[place]) == self._crc[place]


class MemoryStore:
    """What `Store` is, without a disk: for a run that is to leave nothing behind."""

    path = Path()
    size = row_bytes = 0

    def __init__(self, shape: Sequence[int], dtype: str):
        self.shape, self.dtype = tuple(shape), dtype
        self.seconds_per_row: float | None = None
        self.overflowed = False
        self._place: dict[str, int] = {}
        self._rows: list[np.ndarray] = []

    def missing(self, hashes: Sequence[str]) -> list[int]:
        """See `Store.missing`."""
        wanted = {each: number for number, each in reversed(list(enumerate(hashes)))}
        return sorted(number for each, number in wanted.items() if each not in self._place)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """See `Store.writing`."""
        yield

    def append(self, hashes: Sequence[str], values: np.ndarray) -> None:
        """See `Store.append`."""
        try:
            rows = _converted(hashes, values, self.shape, self.dtype)
        except Overflow:
            self.overflowed = True
            raise
        for each, row in zip(hashes, rows, strict=True):
            self._place[each] = len(self._rows)
            self._rows.append(row)

    def places(self, hashes: Sequence[str]) -> np.ndarray:
        """See `Store.places`."""
        return np.array([self._place[each] for each in hashes], np.int64)

    def gather(self, places: np.ndarray) -> np.ndarray:
        """See `Store.gather`."""
        return np.stack([self._rows[place] for place in places])

    def close(self) -> None:
        """See `Store.close`."""


def _converted(hashes: Sequence[str], values: np.ndarray, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Rows in a store's type. Raises Overflow, and ValueError where they are of another shape."""
    if values.shape != (len(hashes), *shape):
        raise ValueError(f"rows of shape {shape} expected for {len(hashes)} photos; got {values.shape}")
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(values.astype(DTYPES[dtype]))
    if not np.isfinite(rows.astype(np.float32) if dtype == "bfloat16" else rows).all():
        raise Overflow(dtype)
    return rows


@dataclass(frozen=True)
class Entry:
    """A store on the disk, as `kerastk cache info` lists it; `used` is the time of its last use."""

    path: Path
    described: dict[str, Any]
    size: int
    used: float


def entries(root: Path) -> list[Entry]:
    """The stores in a folder, the one used last first."""
    found = []
    for path in root.iterdir() if root.is_dir() else ():
        # The folder may be anybody's, and hold anything beside.
        if not _NAME.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError, ValueError):
            described = json.loads((path / "key.json").read_text())
            size = sum(file.stat().st_size for file in path.iterdir())
            found.append(Entry(path, described, size, (path / "lock").stat().st_mtime))
    return sorted(found, key=lambda entry: -entry.used)


def trim(root: Path, limit: int) -> int:
    """Throw out the stores used longest ago until the rest is at most `limit` bytes; the bytes that are freed.

    A store that some process holds open stays.
    """
    for leftover in root.iterdir() if root.is_dir() else ():
        # Of a process that was killed while it removed a store.
        if _REMOVED.fullmatch(leftover.name):
            shutil.rmtree(leftover, ignore_errors=True)
    found = entries(root)
    size, freed = sum(entry.size for entry in found), 0
    for entry in reversed(found):
        if size - freed <= limit:
            break
        freed += entry.size if remove(entry.path) else 0
    return freed


def remove(path: Path) -> bool:
    """Delete a store that nobody holds open; whether it was deleted."""
    with contextlib.suppress(OSError), open(path / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Under another name first: a half-deleted store must not be opened.
        gone = path.with_name(f".{path.name}.{time.time_ns()}")
        os.replace(path, gone)
        shutil.rmtree(gone)
        return True
    return False


def _shared_lock(path: Path) -> Any:
    """The open lock file of a store's folder, locked against removal."""
    while True:
        path.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            lock = open(path / "lock", "ab")  # noqa: SIM115 held as long as the store
            fcntl.flock(lock, fcntl.LOCK_SH)
            # Somebody may have removed the folder between the two lines.
            if (path / "lock").exists() and os.path.samestat(os.fstat(lock.fileno()), os.stat(path / "lock")):
                return lock
            lock.close()
