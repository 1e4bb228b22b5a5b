"""What is known of a photo by its bytes alone, found once and kept by SHA-256.

A second look at the same photos reads and hashes the files but decodes none of them.
"""

import contextlib
import hashlib
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import imagehash
import numpy as np
import PIL
from PIL import Image

from kerastk.datasets.images import DECODER_VERSION, decode, header, whole
from kerastk.errors import PhotoError
from kerastk.storage import cache_folder

THUMBNAIL = 32


@dataclass(frozen=True, slots=True)
class Facts:
    """A readable photo's header, perceptual hash and thumbnail, or why it is not readable (`kind` and `error`).

    `phash` is imagehash's 64-bit hash of the photo's low frequencies; `thumbnail` (32, 32, 3) uint8 as bytes;
    `pixels` the SHA-256 of all pixels, once somebody needed it.
    """

    sha256: str
    kind: str = ""
    error: str = ""
    format: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    phash: int = 0
    thumbnail: bytes = b""
    pixels: str = ""


def examine(data: bytes) -> Facts:
    """Decode a photo once and note what the check needs to know about it; never raises."""
    digest = hashlib.sha256(data).hexdigest()
    try:
        head = header(data)
        thumbnail = decode(data, THUMBNAIL, resize="stretch")
    except PhotoError as error:
        return Facts(digest, kind=error.kind, error=str(error))
    phash = int(str(imagehash.phash(Image.fromarray(thumbnail))), 16)
    return Facts(digest, "", "", head.format, head.width, head.height, head.mode, phash, thumbnail.tobytes())


def pixel_digest(data: bytes) -> str:
    """SHA-256 of a photo's size and all its pixels: equal for a PNG and the BMP made from it. Raises PhotoError."""
    pixels = whole(data)
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


class FactStore:
    """Facts by SHA-256 in an SQLite file; usable from many threads and processes at once.

    Facts belong to a version of the decoder and of Pillow; those of others are not returned. A damaged file is started
    anew; where none can be used (a read-only disk), the store is empty and stays so: it only saves time.
    """

    _columns = "sha256, kind, error, format, width, height, mode, phash, thumbnail, pixels"

    def __init__(self, path: Path | None = None):
        self._lock = threading.Lock()
        self._version = f"{DECODER_VERSION}/{PIL.__version__}"
        self._database = None
        path = path or cache_folder() / "facts.sqlite"
        try:
            self._open(path)
        except sqlite3.DatabaseError as error:
            # Damaged, not merely locked or read-only: what it held can be found again.
            if not isinstance(error, sqlite3.OperationalError):
                with contextlib.suppress(OSError, sqlite3.Error):
                    path.unlink()
                    self._open(path)
        except OSError:
            pass

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS facts (version TEXT, sha256 TEXT, kind TEXT, error TEXT, format TEXT, "
            "width INT, height INT, mode TEXT, phash TEXT, thumbnail BLOB, pixels TEXT, "
            "PRIMARY KEY (version, sha256)) WITHOUT ROWID"
        )
        self._database = database

    def get(self, sha256: str) -> Facts | None:
        """The facts of a photo seen before, or None."""
        if self._database is None:
            return None
        with self._lock, contextlib.suppress(sqlite3.Error, ValueError, TypeError):
            row = self._database.execute(
                f"SELECT {self._columns} FROM facts WHERE version = ? AND sha256 = ?", (self._version, sha256)
            ).fetchone()
            if row is not None:
                facts = Facts(*row)
                if not facts.error and len(facts.thumbnail) != THUMBNAIL * THUMBNAIL * 3:
                    return None
                return replace(facts, phash=int(facts.phash, 16))
        return None

    def put(self, many: Iterable[Facts]) -> None:
        """Keep facts; a photo already known is replaced."""
        if self._database is None:
            return
        rows = [
            (self._version, f.sha256, f.kind, f.error, f.format, f.width, f.height, f.mode, f"{f.phash:x}",
             f.thumbnail, f.pixels)
            for f in many
        ]  # fmt: skip
        with self._lock, contextlib.suppress(sqlite3.Error), self._database:
            self._database.execute("BEGIN")
            self._database.executemany(f"INSERT OR REPLACE INTO facts VALUES ({','.join('?' * 11)})", rows)

    def close(self) -> None:
        """Close the file; a garbage-collected store does so too."""
        if self._database is not None:
            self._database.close()
