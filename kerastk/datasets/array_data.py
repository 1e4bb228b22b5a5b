"""From arrays to batches in one call: look, split, and batches that are gathered whole."""

import functools
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import grain
import numpy as np

from kerastk.datasets.arrays import Arrays, open_arrays
from kerastk.datasets.check import KINDS, Look, Photo, class_findings, copy_findings
from kerastk.datasets.manifest import Manifest, settle
from kerastk.datasets.pipeline import Batch, Rows, Timed
from kerastk.datasets.source import Source, natural_key
from kerastk.errors import DataError, PhotoError


class ArrayRows(Rows):
    """Rows of an array as batches of ((batch, ...) values, (batch, classes) float32 one-hot).

    `rows` (photos,) says which row of `values` each of the photos is; the array itself is held, not copied.
    """

    def __init__(
        self, photos: Sequence[Photo], values: np.ndarray, rows: np.ndarray, *, classes: Sequence[str],
        batch_size: int, training: bool, seed: int = 0, balanced: bool = False,
    ):  # fmt: skip
        super().__init__(photos, classes, batch_size=batch_size, training=training, seed=seed, balanced=balanced)
        self.values, self.rows = values, rows
        # Reports of runs on photos look for photos_per_second.
        self.noun = "photos" if values.ndim == 4 else "rows"

    def example(self, number: int, epoch: int = 0) -> Batch:
        """Item `number` of the split, the same in every epoch: its values and (classes,) float32."""
        values, labels = self._gathered(np.array([number]))
        return values[0], labels[0]

    def batches(self, first: int, last: int, skip: int = 0) -> grain.IterDataset:
        """See `Rows.batches`."""
        numbers = functools.lru_cache(maxsize=2)(self.numbers)
        per_epoch = len(numbers(first))
        places = (last - first) * per_epoch

        def load(index: int) -> Batch:
            begin = time.thread_time()
            start = index * self.batch_size
            # Where nothing is shuffled a batch may reach into the next pass, which is like the one before.
            inside = np.arange(start, min(start + self.batch_size, places)) % per_epoch
            batch = self._gathered(numbers(first + start // per_epoch)[inside])
            self.decoding += time.thread_time() - begin
            return batch

        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
        items = grain.MapDataset.range(skip, -(-places // self.batch_size)).map(load)
        return Timed(items.to_iter_dataset(options), self)

    def _gathered(self, numbers: np.ndarray) -> Batch:
        labels = np.zeros((len(numbers), len(self.classes)), np.float32)
        labels[np.arange(len(numbers)), self.truth[numbers]] = 1
        return self.values[self.rows[numbers]], labels


@dataclass(frozen=True)
class ArrayData:
    """Rows of arrays, split and ready to be iterated; `test` is None where there is no test split.

    Each split gives ((batch, height, width, channels) uint8 or (batch, features) float32, (batch, classes) float32
    one-hot). Without labels there is one class, "".
    """

    arrays: Arrays
    look: Look
    manifest: Manifest
    train: ArrayRows
    val: ArrayRows
    test: ArrayRows | None

    # What `manifest.counts` counts, one of `labels`.
    label: ClassVar[str] = "class"

    @property
    def classes(self) -> list[str]:
        """Class names in output order."""
        return self.manifest.classes

    labels = classes

    @property
    def values(self) -> np.ndarray:
        """All rows of all splits, in the order of the source."""
        return self.arrays.values

    @property
    def what(self) -> str:
        """`images` or `vectors`."""
        return self.arrays.what

    @property
    def columns(self) -> list[str] | None:
        """The features' names, where they have some."""
        return self.arrays.columns


def look_at_arrays(arrays: Arrays) -> Look:
    """A `Photo` for each row, and what is wrong with them: copies, leaks, two labels, and classes that are small.

    Rows of the same bytes are one group. `width` is the number of features of a vector, its mode F.
    """
    values = arrays.values
    height, width, mode = 1, values.shape[1], "F"
    if arrays.what == "images":
        height, width, mode = values.shape[1], values.shape[2], "L" if values.shape[3] == 1 else "RGB"
    digests = [hashlib.sha256(row).hexdigest() for row in values.reshape(len(values), -1)]
    nothing = [None] * len(values)
    rows = zip(arrays.places, arrays.labels or [""] * len(values), arrays.splits or nothing, digests, strict=True)
    photos = [
        Photo(path, label, split, digest, digest, "array", width, height, mode) for path, label, split, digest in rows
    ]
    classes = sorted({photo.label for photo in photos}, key=natural_key)
    findings = [*arrays.findings, *copy_findings(photos, set())]
    if arrays.labels is not None:
        findings += class_findings(photos, classes)
    source = Source(arrays.name, [], list(arrays.findings), _no_file, classes)
    return Look(source, photos, sorted(findings, key=lambda f: (list(KINDS).index(f.kind), f.paths)))


def _no_file(path: str) -> bytes:
    raise PhotoError(f"{path} is a row of an array and no file", "unreadable")


def open_array_data(
    arrays: Arrays | Any,
    *,
    split: str | None,
    fractions: tuple[float, float, float],
    split_seed: int | None,
    strict: bool,
    batch_size: int,
    seed: int,
    balanced: bool = False,
    labelled: bool = True,
    normal: Sequence[str] = (),
    assigned: Mapping[str, str] | None = None,
) -> ArrayData:
    """Look at the rows, split them, and prepare their batches, in the order of the source where they are not shuffled.

    `arrays` is what `open_arrays` returns or takes. The rest is as in `photos.open_photos`; without `labelled` there
    may be no labels, one class, or small ones.

    Raises:
        DataError: see `open_arrays` and `settle`; or there are no labels where they are needed.
    """
    if not isinstance(arrays, Arrays):
        arrays = open_arrays(arrays)
    if labelled and arrays.labels is None:
        raise DataError(
            f"{arrays.name} has no labels; give y_train beside x_train in a .npz file, a column called label in a CSV "
            "file, IDX files of labels, or (array, labels)."
        )
    look = look_at_arrays(arrays)
    row_of = {photo.path: row for row, photo in enumerate(look.photos)}
    manifest = settle(
        look, split=split, fractions=fractions, split_seed=split_seed, strict=strict, max_bad=0.0, assigned=assigned,
        labelled=labelled, normal=normal,
    )  # fmt: skip
    in_order = {name: sorted(photos, key=lambda photo: row_of[photo.path]) for name, photos in manifest.splits.items()}
    manifest = replace(manifest, splits=in_order, notes=[*arrays.notes, *manifest.notes])

    def made(name: str) -> ArrayRows | None:
        photos = in_order[name]
        if not photos:
            return None
        rows = np.array([row_of[photo.path] for photo in photos], np.int64)
        return ArrayRows(
            photos, arrays.values, rows, classes=manifest.classes, batch_size=batch_size, training=name == "train",
            seed=seed, balanced=balanced,
        )  # fmt: skip

    return ArrayData(arrays, look, manifest, made("train"), made("val"), made("test"))
