"""Crash-safe state: a tree of plain values and arrays, whole on the disk or not there.

A checkpoint is a folder with a number for a name: `arrays.npz`, `state.json` (the tree, with the arrays' names in their
places) and `sha256.json` (the checksums of both). It is written under another name, flushed, and renamed; the last two
are kept, so a damaged one costs the time between them. Nothing in it is code.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from kerastk.datasets.files import run_file, run_zip
from kerastk.errors import RunError
from kerastk.storage import atomic_folder, clear_temporary

FORMAT = 1
KEPT = 2
_ARRAY = "array"
_NAME = re.compile(r"\d{6}")
_LARGEST = 64 * 2**30
_LARGEST_JSON = 2**28


class _OtherVersion(RunError):
    """The checkpoint is whole, but not of this version's format."""


class Checkpoints:
    """The checkpoints of one run, in a folder that one process at a time writes.

    >>> checkpoints = Checkpoints(run.checkpoint)
    >>> checkpoints.save({"epoch": 3, "weights": [np.ones(4, np.float32)]})
    >>> state, damaged = checkpoints.load()
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, state: dict[str, Any]) -> None:
        """Write a tree of dicts with text keys, lists, plain values and arrays; keep the last two.

        Equal arrays are written once.

        Raises:
            OSError: the disk is full; the earlier ones are as they were.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = self._numbers()
        path = self.folder / f"{max(numbers, default=0) + 1:06d}"
        arrays: dict[str, np.ndarray] = {}
        tree = _without_arrays({"format": FORMAT, **state}, arrays)
        with atomic_folder(path) as temporary:
            np.savez(temporary / "arrays.npz", **arrays)
            (temporary / "state.json").write_text(json.dumps(tree), encoding="utf-8")
            sums = {name: _sha256(temporary / name) for name in ("arrays.npz", "state.json")}
            (temporary / "sha256.json").write_text(json.dumps(sums), encoding="utf-8")
        kept = sorted([*numbers, int(path.name)])[-KEPT:]
        for entry in self.folder.iterdir():
            if _NAME.fullmatch(entry.name) and int(entry.name) not in kept:
                shutil.rmtree(entry)
        clear_temporary(self.folder)

    def load(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest whole one (None where there is none yet), and a line for each newer one that is damaged.

        Raises:
            RunError: there are some, and all are damaged; or they are of another version.
        """
        damaged = []
        for number in sorted(self._numbers(), reverse=True):
            path = self.folder / f"{number:06d}"
            try:
                return _read(path), damaged
            except _OtherVersion:
                raise
            except Exception as error:
                # zipfile and NumPy raise anything on damaged bytes: EOFError, NotImplementedError, MemoryError.
                damaged.append(f"the checkpoint {path} is damaged ({' '.join(str(error).split())[:100]})")
        if damaged:
            raise RunError(f"{'; '.join(damaged)}; there is no other. Start a new run.")
        return None, []

    def _numbers(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return [int(entry.name) for entry in self.folder.iterdir() if _NAME.fullmatch(entry.name)]


def _read(path: Path) -> dict[str, Any]:
    """The state in a checkpoint. Raises whatever damaged files make the readers raise, and RunError."""
    sums = _json(path / "sha256.json")
    for name in ("arrays.npz", "state.json"):
        if _sha256(run_file(path / name, _LARGEST)) != sums[name]:
            raise ValueError(f"{name} is not what was written")
    tree = _json(path / "state.json")
    if tree["format"] != FORMAT:
        raise _OtherVersion(f"{path} has format {tree['format']!r}; this version of kerastk reads {FORMAT}.")
    run_zip(path / "arrays.npz", _LARGEST)
    with np.load(path / "arrays.npz", allow_pickle=False) as file:
        # Each once: the tree may name one as often as it likes.
        arrays = {name: file[name] for name in file.files}
    return _with_arrays(tree, arrays)


def _json(path: Path) -> dict[str, Any]:
    if run_file(path, _LARGEST).stat().st_size > _LARGEST_JSON:
        raise ValueError(f"{path.name} is too large")
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no table")
    return found


def _without_arrays(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The tree with each array's name in its place; the arrays are added to `arrays`."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            # JSON would make text of them without a word.
            raise TypeError(f"keys must be text; got {next(key for key in value if not isinstance(key, str))!r}")
        plain = {key: _without_arrays(each, arrays) for key, each in value.items()}
        # What only looks like the name of an array is put into a list.
        return {_ARRAY: [plain[_ARRAY]]} if plain.keys() == {_ARRAY} else plain
    if isinstance(value, list | tuple):
        return [_without_arrays(each, arrays) for each in value]
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(f"{value.shape}{value.dtype.str}".encode())
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
        name = digest.hexdigest()
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, np.generic):
        return value.item()
    return value


def _with_arrays(value: Any, arrays: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_ARRAY}:
            inner = value[_ARRAY]
            if not isinstance(inner, list):
                return arrays[inner]
            (inner,) = inner
            return {_ARRAY: _with_arrays(inner, arrays)}
        return {key: _with_arrays(each, arrays) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_arrays(each, arrays) for each in value]
    return value


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
