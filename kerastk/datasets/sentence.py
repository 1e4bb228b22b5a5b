"""A tagged sentence, and the lines of the text files that hold them, within bounds."""

import gzip
import hashlib
import os
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kerastk.datasets.files import open_nonblocking
from kerastk.errors import DataError

# A line (in bytes) and a sentence longer than these are refused, and so is a file of more lines or bytes, unpacked.
MAX_LINE = 2**22
MAX_SENTENCE = 100_000
MAX_LINES = 50_000_000
MAX_BYTES = 2**32
# Lines, and characters in them, that are looked at to tell the kind of file and its columns.
_SAMPLE = 2000, 2**20


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and its tags, one for each token; None where the file has none.

    `offsets` are the tokens' places in `text`, (start, end) in characters, where the file gives them; words that are
    written as one (French `du` = `de` `le`) share a place. `line` is where the sentence begins in `file`, from 1.
    """

    tokens: tuple[str, ...]
    tags: tuple[str, ...] | None = None
    text: str | None = None
    offsets: tuple[tuple[int, int], ...] | None = None
    file: str = ""
    line: int = 0

    @property
    def sha256(self) -> str:
        """A hash of the tokens."""
        return hashlib.sha256("\0".join(self.tokens).encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def place(self) -> str:
        """Where the sentence stands, as `file:line`."""
        return f"{self.file}:{self.line}"


class Lines:
    """The lines of a text file without their ends, each within bounds, and the number of the last one given.

    Raises:
        DataError: the file cannot be read, a line is too long or is no UTF-8 text.
    """

    def __init__(self, path: Path):
        self.path, self.number = path, 0
        self._again: list[str] = []
        self._bytes = 0
        self._file = self._open()

    def _open(self) -> IO[bytes]:
        try:
            file = open(self.path, "rb", opener=open_nonblocking)  # noqa: SIM115
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"cannot read the sentences in {str(self.path)!r}: {reason}.") from None
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise DataError(
                f"{str(self.path)!r} is no file; give a file of tagged sentences (columns, CoNLL-U, JSON lines)."
            )
        start = file.read(2)
        file.seek(0)
        return gzip.open(file) if start == b"\x1f\x8b" else file

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        if self._again:
            self.number += 1
            return self._again.pop()
        try:
            line = self._file.readline(MAX_LINE + 1)
        except (OSError, EOFError, zlib.error) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"cannot read {str(self.path)!r} after line {self.number}: {reason}.") from None
        if not line:
            raise StopIteration
        self.number += 1
        self._bytes += len(line)
        if len(line) > MAX_LINE:
            raise self.fault(f"more than {MAX_LINE >> 20} MiB without an end of line")
        if self.number > MAX_LINES or self._bytes > MAX_BYTES:
            raise self.fault(f"a file of more than {MAX_LINES:,} lines or {MAX_BYTES >> 30} GiB; split it")
        if self.number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise self.fault("UTF-16; expected UTF-8. `iconv -f UTF-16 -t UTF-8` turns one into the other")
        if b"\0" in line:
            raise self.fault("a NUL character, as in a file that is no text; expected UTF-8 text")
        try:
            return line.decode("utf-8-sig" if self.number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise self.fault(
                f"byte {error.start + 1}, {line[error.start]:#04x}, is no UTF-8; expected UTF-8 text"
            ) from None

    def sample(self) -> list[str]:
        """The first lines of the file; they come again afterwards."""
        lines, left = [], _SAMPLE[1]
        while len(lines) < _SAMPLE[0] and left > 0 and (line := next(self, None)) is not None:
            lines.append(line)
            left -= len(line)
        self._again, self.number = lines[::-1], 0
        return lines

    def fault(self, reason: str, number: int | None = None) -> DataError:
        """What to raise for a line, by default the one that was given last."""
        return DataError(f"{self.path}, line {number or self.number}: {reason}.")

    def endless(self, begin: int) -> DataError:
        """What to raise for a sentence that began in line `begin` and does not end."""
        reason = f"the sentence that begins here has more than {MAX_SENTENCE:,} words; an empty line ends a sentence"
        return self.fault(reason, begin)
