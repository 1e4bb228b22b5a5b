"""What an autoencoder is asked about: images or rows of numbers, in any form and from files, as its network takes them.

A table of the user's need not have its columns in the network's order: they are found by name.
"""

import csv
import hashlib
import io
import itertools
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kerastk.datasets.arrays import Arrays, is_arrays, open_arrays
from kerastk.datasets.check import check
from kerastk.datasets.photo_inputs import ExactReader, SquareReader, decoded, existing, photos
from kerastk.datasets.source import open_source
from kerastk.datasets.stored import regular
from kerastk.datasets.table import Lines
from kerastk.errors import DataError, PhotoError

Chunk = tuple[list[str], list[np.ndarray | PhotoError]]
# So a column is called where the file has no names.
_NAMELESS = re.compile(r"column \d+")
# Names that an error shows.
_TOLD = 6


@dataclass(frozen=True)
class Collection:
    """The readable items of a source: `paths`, `labels` ("" for none), and how many files were `unreadable`.

    `batches(size)` gives their values, (at most `size`, *shape), with the SHA-256 by which a run knows each.
    """

    paths: list[str]
    labels: list[str]
    unreadable: int
    batches: Callable[[int], Iterator[tuple[np.ndarray, list[str]]]]


class ItemReader(ABC):
    """Makes of whatever is given the items that a network takes, each of `shape`."""

    shape: tuple[int, ...]

    @abstractmethod
    def is_one(self, given: Any) -> bool:
        """Whether this is one item, and not several."""

    @abstractmethod
    def _parts(self, given: Any) -> Iterator[np.ndarray]:
        """The items of one thing, (items, *shape) at a time."""

    @abstractmethod
    def opened(self, data: Any) -> Arrays:
        """Arrays whose rows `blocks` can take. Raises DataError."""

    @abstractmethod
    def blocks(self, arrays: Arrays, size: int) -> Iterator[np.ndarray]:
        """The rows of arrays as items, (at most `size`, *shape)."""

    def batches(self, given: Any, size: int) -> Iterator[np.ndarray]:
        """One item, or a list of them, as (`size`, *shape), at the end maybe fewer.

        Raises:
            PhotoError: an image cannot be read.
            DataError: an array or its file cannot be used.
        """
        waiting: list[np.ndarray] = []
        count = 0
        for part in itertools.chain.from_iterable(map(self._parts, given if _several(given) else [given])):
            for start in range(0, len(part), size):
                waiting.append(part[start : start + size])
                count += len(waiting[-1])
                if count >= size:
                    full = np.concatenate(waiting)
                    yield full[:size]
                    waiting, count = [full[size:]], count - size
        if count:
            yield np.concatenate(waiting)

    def stream(
        self, inputs: Iterable[str | os.PathLike], *, size: int, threads: int | None = None
    ) -> Iterator[Chunk]:  # fmt: skip
        """Files, folders and archives in order: names and items, or why there is none, in chunks of at most `size`.

        Raises:
            DataError: an input does not exist (found before anything else is done), or is an array that cannot be used.
        """
        for path in existing(inputs):
            yield from self._from_arrays(path, size)

    def _from_arrays(self, path: Path, size: int) -> Iterator[Chunk]:
        arrays, root = self.opened(path), path if path.is_dir() else path.parent
        start = 0
        for block in self.blocks(arrays, size):
            places = [arrays.place(row) for row in range(start, start + len(block))]
            yield places if arrays.paths is not None else [str(root / place) for place in places], list(block)
            start += len(block)

    def collected(self, data: Any) -> Collection:
        """All items of `data`, which is what the run of an autoencoder can learn from.

        Raises:
            DataError: it cannot be used, or holds other items than the network takes.
        """
        arrays = self.opened(data)

        def batches(size: int) -> Iterator[tuple[np.ndarray, list[str]]]:
            return ((block, _digests(block)) for block in self.blocks(arrays, size))

        return Collection(arrays.places, arrays.labels or [""] * len(arrays.values), 0, batches)


class ImageReader(ItemReader):
    """Reads images: photos are resized where the run has an `image_size`, and else have the size of its arrays."""

    def __init__(self, shape: Sequence[int], *, image_size: int | None = None, resize: str | None = None):
        self.shape = tuple(shape)
        self.resizes = image_size is not None
        grey = self.shape[2] == 1
        self._reader = SquareReader(image_size, resize, grey=grey) if self.resizes else ExactReader(shape)

    def is_one(self, given: Any) -> bool:
        """See `ItemReader`."""
        if isinstance(given, np.ndarray):
            return not self._is_stack(given)
        return not _several(given) and not (isinstance(given, str | os.PathLike) and is_arrays(given))

    def _is_stack(self, array: np.ndarray) -> bool:
        # Grey images may come without their last axis.
        flat = self.shape[2] == 1 and array.shape[1:] == self.shape[:2] and array.shape != self.shape
        return array.ndim == 4 or (array.ndim == 3 and flat)

    def _parts(self, given: Any) -> Iterator[np.ndarray]:
        if isinstance(given, np.ndarray) and self._is_stack(given):
            yield from self._stacked(given)
        elif isinstance(given, str | os.PathLike) and is_arrays(given):
            # One at a time: they may be smaller than what they become.
            yield from self.blocks(self.opened(given), 1 if self.resizes else 1024)
        else:
            yield self.image(given)[None]

    def _stacked(self, images: np.ndarray) -> Iterator[np.ndarray]:
        if images.dtype == np.uint8 and images.shape[1:] == self.shape:
            yield images
        else:
            yield from (self.image(image)[None] for image in images)

    def image(self, given: Any) -> np.ndarray:
        """One image in any form as (height, width, channels) uint8. Raises PhotoError."""
        if isinstance(given, np.ndarray) and given.dtype == np.uint8:
            if given.shape == self.shape:
                return given
            if given.ndim == 3 and given.shape[2] == 1:
                given = given[..., 0]
        return self._reader(given)

    def opened(self, data: Any) -> Arrays:
        """See `ItemReader`."""
        arrays = open_arrays(data)
        if arrays.what != "images":
            raise DataError(
                f"{_where(data)} holds rows of {arrays.values.shape[1]:,} numbers, and the network takes images."
            )
        shape = arrays.values.shape[1:]
        if shape != self.shape and not self.resizes:
            told, wanted = (" x ".join(map(str, each)) for each in (shape, self.shape))
            raise DataError(f"{_where(data)} holds images of {told}, and the network takes those of {wanted}.")
        return arrays

    def blocks(self, arrays: Arrays, size: int) -> Iterator[np.ndarray]:
        """See `ItemReader`."""
        for start in range(0, len(arrays.values), size):
            yield np.concatenate(list(self._stacked(arrays.values[start : start + size])))

    def stream(
        self, inputs: Iterable[str | os.PathLike], *, size: int, threads: int | None = None
    ) -> Iterator[Chunk]:  # fmt: skip
        """See `ItemReader`; photos that cannot be read come with their error."""
        for of_arrays, paths in itertools.groupby(existing(inputs), is_arrays):
            if of_arrays:
                yield from itertools.chain.from_iterable(self._from_arrays(path, size) for path in paths)
            else:
                yield from decoded(photos(paths), self._reader.from_bytes, size=size, threads=threads)

    def collected(self, data: Any, *, labelled: bool = False) -> Collection:
        """See `ItemReader`; where they are to be `labelled`, photos that lie in no class are left out, and arrays must
        have labels."""
        if is_arrays(data):
            return self._collected_arrays(self.opened(data), labelled)
        source = open_source(data, labelled=labelled)
        look = check(source)
        if not look.photos:
            raise DataError(f"no readable photos in {source.name}.")

        def batches(size: int) -> Iterator[tuple[np.ndarray, list[str]]]:
            files = ((photo.path, partial(source.read, photo.path)) for photo in look.photos)
            known = iter(look.photos)
            for names, loaded in decoded(files, self._reader.from_bytes, size=size):
                for name, image in zip(names, loaded, strict=True):
                    if isinstance(image, PhotoError):
                        raise DataError(f"{name}: {image}.")
                images = np.stack(loaded)
                yield images, [next(known).sha256 for _ in names] if self.resizes else _digests(images)

        found = look.photos
        return Collection([each.path for each in found], [each.label for each in found], len(look.bad), batches)

    def _collected_arrays(self, arrays: Arrays, labelled: bool) -> Collection:
        if labelled and arrays.labels is None:
            raise DataError(f"{arrays.name} has no labels to compare with; use `kerastk predict`.")

        def batches(size: int) -> Iterator[tuple[np.ndarray, list[str]]]:
            starts = range(0, len(arrays.values), size)
            for start, block in zip(starts, self.blocks(arrays, size), strict=True):
                # A run knows an image by its bytes in the array, whatever the network sees of it.
                yield block, _digests(arrays.values[start : start + size])

        return Collection(arrays.places, arrays.labels or [""] * len(arrays.values), 0, batches)


class RowReader(ItemReader):
    """Reads rows of numbers. `columns` are the network's, by name, where it has learned them from a table with names.

    `label_column` is a column of tables that is no number; a table may lack it.
    """

    def __init__(self, features: int, *, columns: Sequence[str] | None = None, label_column: str | None = None):
        self.shape = (features,)
        self._columns = _names(columns)
        self._label_column = label_column

    def is_one(self, given: Any) -> bool:
        """See `ItemReader`."""
        return isinstance(given, np.ndarray) and given.ndim == 1

    def _parts(self, given: Any) -> Iterator[np.ndarray]:
        if not isinstance(given, np.ndarray | str | os.PathLike):
            raise DataError(
                f"rows must be an array ({self.shape[0]},) or (rows, {self.shape[0]}), or the path of a .npy, .npz or "
                f".csv file; got {type(given).__name__}."
            )
        yield from self.blocks(self.opened(given[None] if self.is_one(given) else given), 1024)

    def opened(self, data: Any) -> Arrays:
        """See `ItemReader`."""
        if isinstance(data, str | os.PathLike) and os.path.isdir(data):
            raise DataError(f"{_where(data)} is a folder, and the network takes rows of numbers; give .npy, .npz or "
                            ".csv files.")  # fmt: skip
        label = self._label_column if self._label_column in _first_line(data) else None
        arrays = open_arrays(data, label_column=label, varied=False)
        if arrays.what != "vectors":
            raise DataError(f"{_where(data)} holds images, and the network takes rows of {self.shape[0]:,} numbers.")
        self._order(arrays, _where(data))
        return arrays

    def blocks(self, arrays: Arrays, size: int) -> Iterator[np.ndarray]:
        """See `ItemReader`."""
        order = self._order(arrays, arrays.name)
        for start in range(0, len(arrays.values), size):
            block = arrays.values[start : start + size]
            yield block if order is None else block[:, order]

    def _order(self, arrays: Arrays, where: str) -> list[int] | None:
        """At which place of a row each of the network's columns stands; None where they stand as they should."""
        theirs = _names(arrays.columns)
        if self._columns is not None and theirs is not None:
            missing = [name for name in self._columns if name not in theirs]
            more = [name for name in theirs if name not in self._columns]
            if missing or more:
                lacks = f"lacks {_told(missing)}" if missing else ""
                has = f"has {_told(more)}, which the network did not learn" if more else ""
                raise DataError(f"{where} {' and '.join(each for each in (lacks, has) if each)}.")
            return None if theirs == self._columns else [theirs.index(name) for name in self._columns]
        if arrays.values.shape[1:] != self.shape:
            raise DataError(
                f"{where} has rows of {arrays.values.shape[1]:,} numbers, and the network takes those of "
                f"{self.shape[0]:,}."
            )
        return None


def _several(given: Any) -> bool:
    return isinstance(given, list | tuple)


def _where(data: Any) -> str:
    return repr(os.fspath(data)) if isinstance(data, str | os.PathLike) else "the array"


def _names(columns: Sequence[str] | None) -> list[str] | None:
    """The names of columns; None where they are no names that anybody gave."""
    return None if columns is None or all(_NAMELESS.fullmatch(name) for name in columns) else list(columns)


def _told(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:_TOLD])
    more = f", ... ({len(names):,} in all)" if len(names) > _TOLD else ""
    return f"the column{'' if len(names) == 1 else 's'} {shown}{more}"


def _first_line(data: Any) -> list[str]:
    """The first line of a CSV file; of anything else nothing."""
    if not (isinstance(data, str | os.PathLike) and os.fspath(data).lower().endswith(".csv")):
        return []
    try:
        with regular(Path(data)) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
            return next(csv.reader(Lines(text, Path(data)), strict=True), [])
    except (OSError, ValueError, csv.Error, DataError):
        # Whoever reads the file says what is wrong with it.
        return []


def _digests(items: np.ndarray) -> list[str]:
    """The SHA-256 of each item's bytes, as the look at arrays has it."""
    return [hashlib.sha256(row).hexdigest() for row in np.ascontiguousarray(items).reshape(len(items), -1)]
