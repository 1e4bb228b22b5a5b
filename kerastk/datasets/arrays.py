"""Arrays as data: images or vectors, a row an item, from .npy, .npz, CSV, IDX and CIFAR's files, or from Python.

Files are held against limits before memory is taken (see `stored`), nothing is unpickled, and what is read stands in
memory once.
"""

import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kerastk.datasets.archive import ARCHIVE, MAX_UNPACKED
from kerastk.datasets.array_values import Part, class_names, held, row_shape, texts
from kerastk.datasets.cifar import has_batches, is_cifar, open_cifar
from kerastk.datasets.files import Finding, is_hidden, read_file
from kerastk.datasets.idx import IDX, stored_idx
from kerastk.datasets.number_table import is_number_table, read_number_table
from kerastk.datasets.public import CLASS_NAMES
from kerastk.datasets.source import SPLIT_NAMES, SPLITS, run_name
from kerastk.datasets.stored import InMemory, npy, npz, reading
from kerastk.datasets.table import MAX_ROWS
from kerastk.errors import DataError

LAYOUTS = "x_train[,y_train,x_val,y_val,x_test,y_test], x[,y], images[,labels], vector[,label,path], or one of any name"
# The files of MNIST and its like: train-images-idx3-ubyte.gz, emnist-digits-test-labels-idx1-ubyte.
_IDX_FILE = re.compile(
    r"(?P<set>(?:.+-)?)(?P<split>[a-z0-9]+)-(?P<what>images|labels)[-.]idx\d-ubyte(?:\.gz)?", re.IGNORECASE
)
_IDX_SPLITS = SPLIT_NAMES | {"t10k": "test"}


@dataclass(frozen=True)
class Arrays:
    """Rows of one array: `values` are images (rows, height, width, 1 or 3) uint8 or vectors (rows, features) float32.

    `labels`, `splits` (train, val or test) and `columns` (the features' names) are None where there are none. `parts`
    are the arrays that the rows come from and how many each has, `paths` the rows' own names where they have some.
    `notes` tell what became of the values.
    """

    name: str
    values: np.ndarray
    labels: list[str] | None
    splits: list[str] | None
    columns: list[str] | None
    parts: tuple[tuple[str, int], ...]
    paths: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def what(self) -> str:
        """`images` or `vectors`."""
        return "images" if self.values.ndim == 4 else "vectors"

    @property
    def places(self) -> list[str]:
        """Where each row stands, as `train-images-idx3-ubyte.gz#17`, or the path that it came with."""
        if self.paths is not None:
            return self.paths
        return [f"{name}#{row}" for name, rows in self.parts for row in range(rows)]

    def place(self, row: int) -> str:
        """Where one row stands."""
        if self.paths is not None:
            return self.paths[row]
        return _place(self.parts, row)


def _place(parts: Iterable[tuple[str, int]], row: int) -> str:
    for name, rows in parts:
        if row < rows:
            return f"{name}#{row}"
        row -= rows
    raise IndexError(row)


def is_arrays(data: Any) -> bool:
    """Whether data would be read as arrays: by its name, the first line of a CSV file, or names in a folder or archive.

    From Python an array, or a tuple of an array and labels. False for a table, folder or archive that cannot be read.
    """
    if not isinstance(data, str | os.PathLike):
        pair = isinstance(data, tuple) and len(data) == 2
        return isinstance(data[0] if pair else data, np.ndarray)
    name = os.path.basename(os.fspath(data)).lower()
    if name.endswith((".npy", ".npz")):
        return True
    if name.endswith(".csv"):
        return is_number_table(data)
    try:
        if os.path.isdir(data):
            return any(_idx_key(entry) is not None for entry in os.listdir(data)) or is_cifar(data)
    except (OSError, ValueError):
        return False
    return bool(IDX.search(name)) or is_cifar(data)


def open_arrays(data: Any, *, label_column: str | None = None, varied: bool = True) -> Arrays:
    """The rows of a .npy, .npz, CSV or IDX file, a folder of IDX files, CIFAR's files, or an array or (array, labels).

    CIFAR's are in a folder or an archive. `label_column` names the column of a CSV file that holds the labels; without
    `varied` its columns may be constant.

    Raises:
        DataError: nothing is there, it is damaged or of another kind, its rows or values cannot be used, or a
            `label_column` would not be used.
    """
    if not isinstance(data, str | os.PathLike):
        _refuse(label_column, "an array")
        return _from_python(data)
    path = Path(data)
    with reading(repr(os.fspath(data))):
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    lower = path.name.lower()
    if lower.endswith(".csv") and not is_folder:
        table = read_number_table(path, label_column=label_column, varied=varied)
        parts = ((path.name, len(table.values)),)
        return Arrays(run_name(path), table.values, table.labels, table.splits, table.columns, parts, notes=table.notes)
    _refuse(label_column, repr(str(path)))
    if is_folder:
        with reading(repr(str(path))):
            names = sorted(os.listdir(path))
        if not has_batches(names):
            return _from_idx_folder(path, names)
        if any(_idx_key(name) is not None for name in names):
            raise DataError(f"{str(path)!r} holds IDX files and files of CIFAR; put each into a folder of its own.")
    if is_folder or ARCHIVE.search(lower):
        found = open_cifar(path)
        return Arrays(
            run_name(path), found.values, found.labels, found.splits, None, found.parts, findings=found.findings
        )
    if lower.endswith(".npy"):
        return _made(run_name(path.with_suffix("")), [npy(path)], [])
    if lower.endswith(".npz"):
        return _from_npz(path)
    if IDX.search(lower):
        return _from_idx_file(path)
    raise DataError(
        f"{str(path)!r} is no array that kerastk reads; give a .npy, .npz, .csv or IDX file, or a folder of IDX files "
        "or of CIFAR's."
    )


def _refuse(label_column: str | None, what: str) -> None:
    if label_column is not None:
        raise DataError(f"{what} is no CSV file; label column {label_column!r} would not be used. Leave it out.")


def _from_python(data: Any) -> Arrays:
    values, labels = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    if not isinstance(values, np.ndarray):
        raise DataError(
            f"data must be a path, a NumPy array, or a tuple of one and its labels; got {type(values).__name__}."
        )
    given = []
    if labels is not None:
        try:
            given = [InMemory("labels", "the labels", np.asarray(labels))]
        except ValueError:
            raise DataError("the labels are lists of different lengths; expected one label a row.") from None
    return _made("array", [InMemory("array", "the array", np.asarray(values))], given)


def _from_npz(path: Path) -> Arrays:
    found = npz(path)
    names, name = set(found), run_name(path.with_suffix(""))
    given = [split for split in SPLITS if f"x_{split}" in found]
    if "train" in given and names <= {f"{letter}_{split}" for split in given for letter in "xy"}:
        missing = [f"y_{split}" for split in given if f"y_{split}" not in found]
        if len(missing) in (0, len(given)):
            parts, labels = ([found[f"{letter}_{split}"] for split in given if f"{letter}_{split}" in found]
                             for letter in "xy")  # fmt: skip
            return _made(name, parts, labels, given)
    elif len(names) == 1:
        return _made(name, list(found.values()), [])
    for values, label, own in (("x", "y", ""), ("images", "labels", ""), ("vector", "label", "path")):
        if values in names and names <= {values, label, own}:
            made = _made(name, [found[values]], [found[label]] if label in names else [], paths=found.get(own))
            return _without_empty_labels(made, repr(str(path)))
    told = ", ".join(f"{each[:30]!r} {str(array.shape)[:40]}" for each, array in list(found.items())[:8])
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    raise DataError(f"{str(path)!r} holds {told}{more}; expected {LAYOUTS}.")


def _without_empty_labels(arrays: Arrays, where: str) -> Arrays:
    """As `kerastk embed` writes photos that have no label: an empty one."""
    if arrays.labels is None or "" not in arrays.labels:
        return arrays
    if any(arrays.labels):
        row = arrays.labels.index("")
        raise DataError(f"{where}: row {row} has an empty label, others have one; give all or none.")
    return replace(arrays, labels=None)


def _from_idx_file(path: Path) -> Arrays:
    plain = re.sub(r"idx\d", "idx1", re.sub(r"\.gz$", "", path.name.replace("images", "labels")))
    beside = [path.with_name(each) for each in (plain, plain + ".gz") if "images" in path.name]
    labels = [stored_idx(each, limit=MAX_UNPACKED) for each in beside if each.exists()][:1]
    name = run_name(path.with_name(IDX.sub("", path.name) or "data"))
    return _named(_made(name, [stored_idx(path, limit=MAX_UNPACKED)], labels), path.with_name(CLASS_NAMES))


def _named(arrays: Arrays, path: Path) -> Arrays:
    """With the names that the file has, if it is there, in place of the numbers 0, 1, 2, ... of the labels."""
    if arrays.labels is None or not path.exists():
        return arrays
    where = repr(str(path))
    with reading(where):
        names = class_names(read_file(path), where)
    known = {str(number): name for number, name in enumerate(names)}
    wrong = next((label for label in arrays.labels if label not in known), None)
    if wrong is not None:
        raise DataError(
            f"{where} names {len(names):,} classes, the first for label 0, and there is a label {wrong[:80]}; give "
            "each label a name."
        )
    return replace(arrays, labels=[known[label] for label in arrays.labels])


def _idx_key(name: str) -> tuple[str, str, str] | None:
    """(set, split, images or labels) of the name of an IDX file of MNIST's kind, else None."""
    found = _IDX_FILE.fullmatch(name)
    if found is None or found["split"].lower() not in _IDX_SPLITS:
        return None
    return found["set"].lower(), _IDX_SPLITS[found["split"].lower()], found["what"].lower()


def _from_idx_folder(path: Path, names: Sequence[str]) -> Arrays:
    where = repr(str(path))
    files: dict[tuple[str, str, str], str] = {}
    findings = []
    for name in names:
        key = _idx_key(name)
        if key is not None:
            if files.setdefault(key, name).removesuffix(".gz") != name.removesuffix(".gz"):
                raise DataError(f"{where} holds {files[key]} and {name}, both for {key[1]}; take one out.")
        elif name != CLASS_NAMES:
            hidden = is_hidden(name)
            text = "hidden files are left out" if hidden else "no IDX file"
            findings.append(Finding("hidden" if hidden else "other-file", (name,), text))
    sets = sorted({each for each, _, _ in files})
    if len(sets) > 1:
        told = ", ".join(each.rstrip("-") or "one without a name" for each in sets[:6])
        raise DataError(f"{where} holds several sets of IDX files: {told}; put one into a folder of its own.")
    images, labels = ({split: files[key] for split in SPLITS if (key := (*sets, split, what)) in files}
                      for what in ("images", "labels"))  # fmt: skip
    if not images:
        raise DataError(
            f"{where} holds no IDX files of images, as train-images-idx3-ubyte or t10k-images-idx3-ubyte.gz, and no "
            "files of CIFAR, as data_batch_1.bin or train.bin."
        )
    for one, other, what in ((images, labels, "labels"), (labels, images, "images")):
        alone = [split for split in one if split not in other]
        if alone and labels:
            raise DataError(f"{where} has {one[alone[0]]}, but no {what} beside it; give all splits {what}.")
    parts, marks = ([stored_idx(path / each, limit=MAX_UNPACKED) for each in names.values()]
                    for names in (images, labels))  # fmt: skip
    made = _made(run_name(path), parts, marks, list(images), findings=findings)
    return _named(made, path / CLASS_NAMES)


def _made(
    name: str, parts: Sequence[Part], labels: Sequence[Part], splits: Sequence[str] | None = None, *,
    paths: Part | None = None, findings: Sequence[Finding] = (),
) -> Arrays:  # fmt: skip
    """All rows in one array; `labels` has as many arrays as `parts`, or none, and `splits` the name of each part."""
    items = [row_shape(part) for part in parts]
    for part, item in zip(parts, items, strict=True):
        if item != items[0]:
            raise DataError(
                f"{part.where} has rows of {' x '.join(map(str, item))}, {parts[0].where} of "
                f"{' x '.join(map(str, items[0]))}; all splits need one size."
            )
    rows = [part.shape[0] for part in parts]
    if sum(rows) > MAX_ROWS:
        raise DataError(f"{parts[0].where} has {sum(rows):,} rows; the limit is {MAX_ROWS:,}.")
    named = [text for part, mark in zip(parts, labels, strict=False) for text in texts(mark, part)]
    values, notes = held(parts, items[0], sum(rows))
    own = None if paths is None else _paths(paths, parts[0])
    given = None if splits is None else [each for each, count in zip(splits, rows, strict=True) for _ in range(count)]
    sources = tuple((part.name, count) for part, count in zip(parts, rows, strict=True))
    return Arrays(name, values, named if labels else None, given, None, sources, own, notes, list(findings))


def _paths(paths: Part, part: Part) -> list[str]:
    """The rows' own names, each another one."""
    found = texts(paths, part)
    seen: dict[str, int] = {}
    for row, each in enumerate(found):
        if seen.setdefault(each, row) != row:
            raise DataError(
                f"{paths.where}: {each[:80]!r} stands at the rows {seen[each]} and {row}; expected each once."
            )
    return found
