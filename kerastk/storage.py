"""Where kerastk keeps files, and the one function that writes them."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from kerastk.errors import RecipeError

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}(\.\w+)?")


def _temporary() -> str:
    return f".{secrets.token_hex(8)}"


def cache_folder() -> Path:
    """The folder for what can be made again: `$KERASTK_CACHE`, else `kerastk` in the user's cache folder."""
    named = os.environ.get("KERASTK_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kerastk"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, for a writer that wants a file name; renamed to `path` on success.

    The file appears whole or not at all: its bytes and its folder entry are flushed to the disk before and after
    the rename, and a failure leaves neither a partial file nor a changed one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Some writers (Keras among them) go by the ending, so it is kept.
    temporary = path.parent / f"{_temporary()}{path.suffix}"
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, renamed to `path` on success; `path` must be new.

    Like `atomic_path`: the folder appears with all its files whole, or not at all.
    """
    temporary = path.parent / _temporary()
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.iterdir():
            _flush(file)
        _flush(temporary)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _flush(path.parent)


def clear_temporary(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder; nobody else may be writing in it."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink() if path.is_file() else shutil.rmtree(path)


def _flush(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, to the disk."""
    if os.name != "posix" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_writer(path: Path, *, binary: bool = False) -> Iterator[IO]:
    """An open file that becomes `path` when the block ends well. Text is UTF-8; odd file names survive in it."""
    with atomic_path(path) as temporary:
        text = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
        with open(temporary, "wb" if binary else "w", **({} if binary else text)) as file:
            yield file


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` to `path`: the whole of it or nothing."""
    with atomic_writer(path, binary=isinstance(content, bytes)) as file:
        file.write(content)


def check_ending(path: Path, endings: tuple[str, ...]) -> None:
    """Refuse, with a RecipeError, an output file whose ending names no format."""
    if path.suffix not in endings:
        raise RecipeError(f"--out must end in {', '.join(endings)}; got {str(path)!r}.")
