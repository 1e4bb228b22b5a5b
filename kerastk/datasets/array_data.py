"""From arrays to batches in one call: look, split, and batches that are gathered whole."""

import functools
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import grain
import numpy as np
from PIL import Image

from kerastk.datasets.arrays import Arrays, open_arrays
from kerastk.datasets.augment import Policy, generator, policy
from kerastk.datasets.check import KINDS, Look, Photo, class_findings, copy_findings
from kerastk.datasets.images import fit
from kerastk.datasets.manifest import Manifest, settle
from kerastk.datasets.pipeline import Batch, Rows, Timed
from kerastk.datasets.source import Source, check_chosen, natural_key
from kerastk.errors import DataError, PhotoError


@dataclass(frozen=True)
class Squares:
    """What becomes of the images of an array: (size, size, channels) uint8, as `resize` says; see `images.decode`."""

    size: int
    channels: int
    resize: str = "crop"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a square."""
        return self.size, self.size, self.channels

    def plain(self, images: np.ndarray) -> np.ndarray:
        """(images, height, width, 1 or 3) uint8 as squares; those that are such already as they are."""
        if images.shape[1:3] != (self.size, self.size):
            images = np.stack([self._fitted(image) for image in images])
        return self._coloured(images)

    def varied(self, image: np.ndarray, policy: Policy, random: np.random.Generator) -> np.ndarray:
        """One image as a square, augmented."""
        height, width = image.shape[:2] if self.resize == "crop" else (1, 1)
        box = policy.crop.box(width, height, random) if policy.crop else None
        if box is None and image.shape[:2] == (self.size, self.size):
            square = _pillow(image).convert("RGB")
        else:
            square = fit(_pillow(image), self.size, resize=self.resize, box=box)
        return self._coloured(np.asarray(policy(square, random)))

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        pixels = np.asarray(fit(_pillow(image), self.size, resize=self.resize))
        return pixels[..., : image.shape[-1]]

    def _coloured(self, pixels: np.ndarray) -> np.ndarray:
        """With `channels` in place of 1 or 3: what is grey has the same in all three."""
        if pixels.shape[-1] == self.channels:
            return pixels
        return pixels[..., :1] if self.channels == 1 else np.repeat(pixels, 3, axis=-1)


def _pillow(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


class ArrayRows(Rows):
    """Rows of an array as batches of ((batch, ...) values, (batch, classes) float32 one-hot).

    `rows` (photos,) says which row of `values` each of the photos is; the array itself is held, not copied. With
    `squares` images are made such on their way; with a `policy` they are varied, too.
    """

    def __init__(
        self, photos: Sequence[Photo], values: np.ndarray, rows: np.ndarray, *, classes: Sequence[str],
        batch_size: int, training: bool, seed: int = 0, balanced: bool = False, squares: Squares | None = None,
        policy: Policy | None = None,
    ):  # fmt: skip
        super().__init__(photos, classes, batch_size=batch_size, training=training, seed=seed, balanced=balanced)
        self.values, self.rows = values, rows
        self.squares, self.policy = squares, policy
        # Reports of runs on photos look for photos_per_second.
        self.noun = "photos" if values.ndim == 4 else "rows"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an item as the batches have it."""
        return self.values.shape[1:] if self.squares is None else self.squares.shape

    def plain(self, numbers: np.ndarray) -> np.ndarray:
        """Some items of the split, by number, not augmented: (items, *shape)."""
        values = self.values[self.rows[numbers]]
        return values if self.squares is None else self.squares.plain(values)

    def example(self, number: int, epoch: int = 0) -> Batch:
        """Item `number` of the split as `epoch` shows it: its values and (classes,) float32."""
        values, labels = self._gathered(np.array([number]), epoch)
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
            epoch = first + start // per_epoch
            batch = self._gathered(numbers(epoch)[inside], epoch)
            self.decoding += time.thread_time() - begin
            return batch

        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
        items = grain.MapDataset.range(skip, -(-places // self.batch_size)).map(load)
        return Timed(items.to_iter_dataset(options), self)

    def _gathered(self, numbers: np.ndarray, epoch: int) -> Batch:
        labels = np.zeros((len(numbers), len(self.classes)), np.float32)
        labels[np.arange(len(numbers)), self.truth[numbers]] = 1
        if self.policy is not None and self.policy.varies:
            values = self.values[self.rows[numbers]]
            draws = (generator(self.seed, epoch, self.photos[number].sha256) for number in numbers)
            pairs = zip(values, draws, strict=True)
            return np.stack([self.squares.varied(value, self.policy, random) for value, random in pairs]), labels
        return self.plain(numbers), labels


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


def only(arrays: Arrays, names: Sequence[str]) -> Arrays:
    """The rows of these classes alone, each called as before. Raises DataError as `source.only`, or without labels."""
    check_labelled(arrays)
    check_chosen(names, sorted(set(arrays.labels), key=natural_key), arrays.name)
    rows = [row for row, label in enumerate(arrays.labels) if label in names]
    labels, places, splits = (
        None if each is None else [each[row] for row in rows] for each in (arrays.labels, arrays.places, arrays.splits)
    )
    return replace(arrays, values=arrays.values[rows], labels=labels, splits=splits, paths=places)


def check_labelled(arrays: Arrays) -> None:
    """Refuse, with a DataError, arrays without labels."""
    if arrays.labels is None:
        raise DataError(
            f"{arrays.name} has no labels; give y_train beside x_train in a .npz file, a column called label in a CSV "
            "file, IDX files of labels, or (array, labels)."
        )


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
    squares: Squares | None = None,
    augment: str = "none",
    assigned: Mapping[str, str] | None = None,
) -> ArrayData:
    """Look at the rows, split them, and prepare their batches, in the order of the source where they are not shuffled.

    `arrays` is what `open_arrays` returns or takes. The rest is as in `photos.open_photos`; without `labelled` there
    may be no labels, one class, or small ones. Without `squares` rows are taken as they are, and not augmented.

    Raises:
        DataError: see `open_arrays` and `settle`; or there are no labels where they are needed.
    """
    if not isinstance(arrays, Arrays):
        arrays = open_arrays(arrays)
    if labelled:
        check_labelled(arrays)
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
            seed=seed, balanced=balanced, squares=squares,
            policy=policy(augment) if squares is not None and name == "train" else None,
        )  # fmt: skip

    return ArrayData(arrays, look, manifest, made("train"), made("val"), made("test"))
