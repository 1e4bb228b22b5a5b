"""The binary version of CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html), unpacked or as it comes.

A file is records, one after the other: a byte with the label (in CIFAR-100 one with the coarse label before it), then
32 x 32 red values row by row, then the green and the blue ones.
"""

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from kerastk.datasets.archive import ARCHIVE, first_names, open_archive
from kerastk.datasets.array_values import Part, class_names
from kerastk.datasets.files import Finding, folder_reader, is_hidden
from kerastk.datasets.images import SUFFIXES
from kerastk.datasets.stored import InMemory, Stored, reading, regular
from kerastk.datasets.table import MAX_ROWS
from kerastk.errors import DataError

SIDE, CHANNELS = 32, 3
PIXELS = SIDE * SIDE * CHANNELS


@dataclass(frozen=True)
class Layout:
    """How the files of one of the two are called; `kinds` says of how many kinds each label before the pixels is one.

    The last label is the class, and the lines of the file `names` are its names.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    kinds: tuple[int, ...]
    others: tuple[str, ...] = ("readme.html",)

    @property
    def files(self) -> tuple[str, ...]:
        """All files of records."""
        return self.train + self.test

    @property
    def record(self) -> int:
        """The bytes of one image with its labels."""
        return len(self.kinds) + PIXELS


LAYOUTS = (
    Layout(
        "CIFAR-10", tuple(f"data_batch_{n}.bin" for n in range(1, 6)), ("test_batch.bin",), "batches.meta.txt", (10,)
    ),
    Layout(
        "CIFAR-100", ("train.bin",), ("test.bin",), "fine_label_names.txt", (20, 100),
        ("readme.html", "coarse_label_names.txt"),
    ),
)  # fmt: skip
_BATCHES = {file: layout for layout in LAYOUTS for file in layout.files}


@dataclass(frozen=True)
class Cifar:
    """Images (rows, 32, 32, 3) uint8 with the names of their classes and their splits, and the files they come from."""

    values: np.ndarray
    labels: list[str]
    splits: list[str]
    parts: tuple[tuple[str, int], ...]
    findings: list[Finding]


def is_cifar(path: str | os.PathLike) -> bool:
    """Whether a folder or archive would be read as CIFAR: by names alone, of an archive by those of its first files."""
    try:
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                names = [entry.name + "/" * entry.is_dir() for entry in entries if not is_hidden(entry.name)]
        elif ARCHIVE.search(os.fspath(path)) and os.path.isfile(path):
            names = first_names(Path(path))
        else:
            return False
    except (OSError, ValueError):
        return False
    # Photos may have a test.bin beside them.
    photos = any(name.endswith("/") or PurePosixPath(name).suffix.lower() in SUFFIXES for name in names)
    return not photos and has_batches(names)


def has_batches(names: Iterable[str]) -> bool:
    """Whether one of the names is that of a file of records."""
    return any(PurePosixPath(name).name in _BATCHES for name in names)


def open_cifar(path: Path) -> Cifar:
    """All images of a folder or archive of CIFAR-10 or CIFAR-100. Splits are as files are called; one may be absent.

    The values stand in memory once; those of an archive beside the files that have not been copied yet.

    Raises:
        DataError: it holds neither or both, a batch is missing, or one of its files is damaged.
    """
    where = repr(str(path))
    with reading(where):
        mode = path.stat().st_mode
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise DataError(f"{where} is no file, but a pipe or device; give a folder or archive of CIFAR.")
        packed = not stat.S_ISDIR(mode)
        names, findings, read = open_archive(path) if packed else (sorted(os.listdir(path)), [], folder_reader(path))
    layout, found, others = _sorted_out(names, where)
    splits = {split: files for split in ("train", "test") if (files := _all_or_none(layout, split, found, where))}
    classes = _class_names(layout, found, read, where)
    batches = []
    for file in (file for files in splits.values() for file in files):
        inside = f"{where}, {file}" if packed else repr(str(path / file))
        with reading(inside):
            batches.append(
                _unpacked(layout, file, inside, read(found[file])) if packed else _stored(layout, inside, path / file)
            )
    parts = tuple((batch.name, batch.shape[0]) for batch in batches)
    counts = dict(parts)
    values, which = _images(layout, batches, where)
    return Cifar(
        values,
        [classes[each] for each in which],
        [split for split, files in splits.items() for file in files for _ in range(counts[file])],
        parts,
        findings + others,
    )


def _sorted_out(names: list[str], where: str) -> tuple[Layout, dict[str, str], list[Finding]]:
    """Which of the two it is, where each of its files lies, and what else is there."""
    batches = [name for name in names if PurePosixPath(name).name in _BATCHES]
    layouts = {_BATCHES[PurePosixPath(name).name].name for name in batches}
    if len(layouts) > 1:
        raise DataError(f"{where} holds files of CIFAR-10 and of CIFAR-100; put each into a folder of its own.")
    if not batches:
        raise DataError(
            f"{where} holds no files of CIFAR, as data_batch_1.bin or train.bin; no other archives are read as arrays."
        )
    folders = sorted({str(PurePosixPath(name).parent) for name in batches})
    if len(folders) > 1:
        told = ", ".join(each[:60] for each in folders[:4])
        raise DataError(f"{where} holds files of {layouts.pop()} in several folders: {told}; leave those of one.")
    layout = _BATCHES[PurePosixPath(batches[0]).name]
    found, others = {}, []
    for name in names:
        folder, file = str(PurePosixPath(name).parent), PurePosixPath(name).name
        if folder == folders[0] and file in (*layout.files, layout.names, *layout.others):
            found[file] = name
        else:
            hidden = is_hidden(file)
            text = "hidden files are left out" if hidden else f"no file of {layout.name}"
            others.append(Finding("hidden" if hidden else "other-file", (name,), text))
    return layout, found, others


def _all_or_none(layout: Layout, split: str, found: dict[str, str], where: str) -> tuple[str, ...]:
    files = layout.train if split == "train" else layout.test
    here = [file for file in files if file in found]
    missing = [file for file in files if file not in found]
    if here and missing:
        raise DataError(
            f"{where} has {here[0]}, but no {', '.join(missing)}; {layout.name} has {len(files)} of them. Put back "
            "what is missing, or take all out."
        )
    return files if here else ()


def _class_names(layout: Layout, found: dict[str, str], read: Callable[[str], bytes], where: str) -> list[str]:
    """The names of the classes; their numbers, where the file of names is absent."""
    count = layout.kinds[-1]
    if layout.names not in found:
        return [str(number) for number in range(count)]
    inside = f"{where}, {layout.names}"
    with reading(inside):
        names = class_names(read(found[layout.names]), inside)
    if len(names) != count:
        raise DataError(f"{inside} has {len(names):,} names; {layout.name} has {count} classes, a line each.")
    return names


def _stored(layout: Layout, where: str, path: Path) -> Part:
    with regular(path) as file:
        rows = _rows(layout, os.fstat(file.fileno()).st_size, where)
    return Stored(path.name, where, (rows, layout.record), np.dtype(np.uint8), 0, lambda: regular(path))


def _unpacked(layout: Layout, name: str, where: str, data: bytes) -> Part:
    rows = _rows(layout, len(data), where)
    return InMemory(name, where, np.frombuffer(data, np.uint8).reshape(rows, layout.record))


def _rows(layout: Layout, size: int, where: str) -> int:
    if size == 0:
        raise DataError(f"{where} is empty; expected records of {layout.record:,} bytes.")
    if size % layout.record:
        raise DataError(
            f"{where} has {size:,} bytes; a record of {layout.name} has {layout.record:,}, so it is cut short or "
            "another file."
        )
    return size // layout.record


def _images(layout: Layout, batches: list[Part], where: str) -> tuple[np.ndarray, list[int]]:
    """The images and the class numbers of all rows; takes the batches out of their list."""
    total = sum(batch.shape[0] for batch in batches)
    if total > MAX_ROWS:
        raise DataError(f"{where} has {total:,} images; the limit is {MAX_ROWS:,}.")
    values = np.empty((total, SIDE, SIDE, CHANNELS), np.uint8)
    classes: list[int] = []
    while batches:
        # Nobody else holds it, so that the bytes of a batch from an archive go once they are copied.
        batch, row = batches.pop(0), 0
        for block in batch.blocks():
            labels, pixels = np.split(block, [len(layout.kinds)], axis=1)
            _check_labels(layout, labels, batch, row)
            own = values[len(classes) : len(classes) + len(block)]
            # One at a time takes a third of the time of all at once.
            for channel, plane in enumerate(np.split(pixels, CHANNELS, axis=1)):
                own[..., channel] = plane.reshape(-1, SIDE, SIDE)
            classes += labels[:, -1].tolist()
            row += len(block)
    return values, classes


def _check_labels(layout: Layout, labels: np.ndarray, batch: Part, first: int) -> None:
    wrong = labels >= np.array(layout.kinds)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        coarse = "coarse " if column < len(layout.kinds) - 1 else ""
        raise DataError(
            f"{batch.where}, row {first + row} has the {coarse}label {labels[row, column]}; those of {layout.name} are "
            f"0 to {layout.kinds[column] - 1}, so it is damaged or another file."
        )
