"""Frozen work is paid once: what the frozen part of a network makes of a photo is computed once and kept.

A `View` of a photo is the photo as it is, mirrored, or augmented by (seed, number, photo). `Activations` runs a network
up to some tensors, once per photo and view, and keeps the values in stores (`store.py`); `CachedSplit` gives them to
`fit` as batches. What is kept depends on the photo's bytes, the decoder and its settings, the view, and the weights in
front of the tensor, and on nothing else: another head, learning rate or trained part finds it there.
"""

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grain
import keras
import numpy as np
import PIL

from kerastk.datasets.augment import AUGMENT_VERSION, MIRRORED, Policy
from kerastk.datasets.images import DECODER_VERSION
from kerastk.datasets.pipeline import Rows, Split, Timed
from kerastk.errors import KerastkError
from kerastk.networks.cuts import cache_cut, cut_for, work
from kerastk.networks.cuts import features as features_of
from kerastk.networks.folding import FOLDING_VERSION, folded
from kerastk.training.store import MemoryStore, Overflow, Store, entries, remove, trim

# A fixed number, so that a photo's values do not depend on how many others are computed with it.
FORWARD_BATCH = 32
DEFAULT_VIEWS = 6
_LEAST_SHARE = 0.1
_SPARE_BYTES = 10**9
_FLUSH_BYTES, _FLUSH_SECONDS = 2**26, 5.0

Progress = Callable[[int, int], None]


class CacheError(KerastkError):
    """The activation cache cannot be written; what the run needs can be computed without it."""


@dataclass(frozen=True)
class View:
    """How a photo is shown: view `number` of (seed, policy); without a policy it is plain."""

    policy: Policy | None = None
    seed: int = 0
    number: int = 0


PLAIN = View()
MIRROR = View(MIRRORED)


@dataclass(frozen=True)
class Point:
    """A tensor whose values are kept, and the type in which: `float32`, `float16` or `bfloat16`."""

    name: str
    tensor: keras.KerasTensor
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of a photo's values."""
        return int(np.prod(self.tensor.shape[1:])) * (4 if self.dtype == "float32" else 2)


class Activations:
    """A network's values at some tensors for photos, each computed once.

    `identity` describes what the values depend on beside weights, photo and view: base, image size, resize, precision.
    Without a `folder` they are kept in memory for this run; with a `limit` the folder is kept at so many bytes.

    `forwards` counts the forward passes (batches of at most FORWARD_BATCH photos) that were needed.
    """

    def __init__(self, model: keras.Model, identity: dict[str, Any], folder: Path | None, *, limit: int | None = None):
        self._model, self._folder, self._limit = model, folder, limit
        self._identity = {
            **identity, "decoder": DECODER_VERSION, "pillow": PIL.__version__, "keras": keras.__version__,
            "folding": FOLDING_VERSION,
        }  # fmt: skip
        self._stores: dict[tuple[str, str, View], Store | MemoryStore] = {}
        self._networks: dict[tuple[str, ...], keras.Model] = {}
        self._fingerprints: dict[str, str] = {}
        self._added: set[Path] = set()
        self.forwards = 0

    def fill(
        self,
        split: Split,
        views: Sequence[View],
        points: Sequence[Point],
        progress: Progress = lambda done, total: None,
    ) -> list[list[Store | MemoryStore]]:
        """The stores of each view, in the order of `points`, with a row for every photo of the split.

        Raises:
            Overflow: a value is not finite in a point's type.
            CacheError: the disk is full, or the folder cannot be written.
            DataError: a photo is gone or has changed.
        """
        hashes = [photo.sha256 for photo in split.photos]
        try:
            stores = [[self._store(point, view) for point in points] for view in views]
            for store in (store for each in stores for store in each):
                if store.overflowed:
                    raise Overflow(store.dtype)
            missing = [self._missing(each, hashes) for each in stores]
            total, done = sum(map(len, missing)), 0
            if self._folder is not None and self._limit is not None:
                # What is held open stays.
                needed = sum(len(numbers) * store.row_bytes for each, numbers in zip(stores, missing, strict=True)
                             for store in each)  # fmt: skip
                trim(self._folder, max(0, min(self._limit, _room(self._folder)) - needed))
            for view, each, numbers in zip(views, stores, missing, strict=True):
                if numbers:
                    before = done
                    self._compute(split, view, points, each, lambda count, d=before: progress(d + count, total))
                    done += len(numbers)
        except OSError as error:
            raise CacheError(f"the activation cache in {self._folder} cannot be written: {error.strerror}") from None
        return stores

    def features(
        self, split: Split, views: Sequence[View], point: Point, progress: Progress = lambda done, total: None
    ) -> np.ndarray:
        """The values at one point for all photos of a split, view after view, (views * photos, values)."""
        hashes = [photo.sha256 for photo in split.photos]
        stores = self.fill(split, views, [point], progress)
        return np.concatenate([store.gather(store.places(hashes)) for (store,) in stores])

    def close(self) -> None:
        """Let the stores go: they may be thrown out from now on."""
        for store in self._stores.values():
            store.close()
        self._stores.clear()

    def discard(self) -> None:
        """Let the stores go, and delete those that this object has added to: they may have filled the disk."""
        self.close()
        for path in self._added:
            remove(path)

    def in_memory(self) -> "Activations":
        """One for the same network that keeps everything in memory."""
        return Activations(self._model, self._identity, None)

    def seconds_per_photo(self, point: Point, view: View) -> float | None:
        """What a photo's values took when they were last computed in number; None where that is not known."""
        return self._store(point, view).seconds_per_row

    def _missing(self, stores: Sequence[Store | MemoryStore], hashes: Sequence[str]) -> list[int]:
        return sorted(set().union(*(store.missing(hashes) for store in stores)))

    def _store(self, point: Point, view: View) -> Store | MemoryStore:
        key = (point.name, point.dtype, view)
        if key not in self._stores:
            shape = point.tensor.shape[1:]
            if self._folder is None:
                made = MemoryStore(shape, point.dtype)
            else:
                made = Store(self._folder, self._described(point, view), shape, point.dtype)
            self._stores[key] = made
        return self._stores[key]

    def _described(self, point: Point, view: View) -> dict[str, Any]:
        shown = {} if view.policy is None else {
            "policy": repr(view.policy), "augment": AUGMENT_VERSION, "seed": view.seed, "view": view.number
        }  # fmt: skip
        if point.name not in self._fingerprints:
            self._fingerprints[point.name] = fingerprint(keras.Model(self._model.input, point.tensor))
        return {**self._identity, **shown, "weights": self._fingerprints[point.name]}

    def _compute(
        self, split: Split, view: View, points: Sequence[Point], stores: Sequence[Store | MemoryStore],
        progress: Callable[[int], None],
    ) -> None:  # fmt: skip
        """Add the rows that are missing to the stores of one view."""
        network = self._network(points)
        hashes = [photo.sha256 for photo in split.photos]
        with contextlib.ExitStack() as stack:
            # In one order everywhere, so that two processes do not wait for each other.
            for store in sorted(stores, key=lambda store: str(store.path)):
                stack.enter_context(store.writing())
                if self._folder is not None:
                    self._added.add(store.path)
            # Another process may have added some meanwhile.
            lacking = [set(store.missing(hashes)) for store in stores]
            numbers = sorted(set().union(*lacking))
            pending: list[tuple[list[int], list[np.ndarray]]] = []
            size, flushed, done = 0, time.monotonic(), 0
            batches = split.view(numbers, view.policy, view.seed, view.number, batch=FORWARD_BATCH)
            begin = time.perf_counter()
            for images in batches:
                values = self._forward(network, images)
                pending.append((numbers[done : done + len(images)], values))
                done += len(images)
                size += sum(each.nbytes for each in values)
                if size >= _FLUSH_BYTES or time.monotonic() - flushed > _FLUSH_SECONDS or done == len(numbers):
                    _flush(pending, stores, lacking, hashes)
                    pending, size, flushed = [], 0, time.monotonic()
                progress(done)
                if done == FORWARD_BATCH:
                    # The first batch compiles.
                    begin = time.perf_counter()
            if done > 2 * FORWARD_BATCH:
                for store in stores:
                    store.seconds_per_row = (time.perf_counter() - begin) / (done - FORWARD_BATCH)

    def _network(self, points: Sequence[Point]) -> keras.Model:
        key = tuple(point.name for point in points)
        if key not in self._networks:
            self._networks[key] = folded(keras.Model(self._model.input, [point.tensor for point in points]))
        return self._networks[key]

    def _forward(self, network: keras.Model, images: np.ndarray) -> list[np.ndarray]:
        """One forward pass in inference mode, always on a full batch."""
        self.forwards += 1
        count = len(images)
        if count < FORWARD_BATCH:
            images = np.concatenate([images, np.zeros((FORWARD_BATCH - count, *images.shape[1:]), images.dtype)])
        # Keras takes a list of one output apart.
        found = network.predict_on_batch(images)
        return [np.asarray(values)[:count] for values in (found if isinstance(found, list) else [found])]


def _flush(
    pending: list[tuple[list[int], list[np.ndarray]]], stores: Sequence[Store | MemoryStore],
    lacking: Sequence[set[int]], hashes: Sequence[str],
) -> None:  # fmt: skip
    numbers = [number for batch, _ in pending for number in batch]
    for place, (store, wanted) in enumerate(zip(stores, lacking, strict=True)):
        rows = np.concatenate([values[place] for _, values in pending])
        chosen = [number in wanted for number in numbers]
        if any(chosen):
            store.append([hashes[number] for number in numbers if number in wanted], rows[chosen])


def fingerprint(network: keras.Model) -> str:
    """SHA-256 over the shapes, types and values of a network's weights, in order, and over the kinds of its layers."""
    digest = hashlib.sha256()
    for operation in network.operations:
        digest.update(type(operation).__name__.encode())
    for weight in network.weights:
        value = np.ascontiguousarray(weight)
        digest.update(f"{value.shape}{value.dtype}".encode() + value.tobytes())
    return digest.hexdigest()


class CachedSplit(Rows):
    """The photos of a split as activations: batches of ((batch, *shape), (batch, classes) float32 one-hot).

    Epoch e shows view e mod K of K stores. Order and size of the batches are those of the split itself.
    """

    def __init__(self, split: Split, stores: Sequence[Store | MemoryStore]):
        super().__init__(
            split.photos, split.classes, batch_size=split.batch_size, training=split.training, seed=split.seed,
            balanced=split.balanced,
        )  # fmt: skip
        hashes = [photo.sha256 for photo in self.photos]
        self._stores = list(stores)
        self._places = [store.places(hashes) for store in stores]
        self._labels = np.eye(len(self.classes), dtype=np.float32)[self.truth]

    def batches(self, first: int, last: int, skip: int = 0) -> grain.IterDataset:
        """See `Rows.batches`."""

        def load(index: int) -> tuple[np.ndarray, np.ndarray]:
            epoch, step = divmod(index, self.steps)
            chosen = self.numbers(first + epoch)[step * self.batch_size : (step + 1) * self.batch_size]
            view = (first + epoch) % len(self._stores)
            return self._stores[view].gather(self._places[view][chosen]), self._labels[chosen]

        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
        places = grain.MapDataset.range(skip, (last - first) * self.steps)
        return Timed(places.map(load).to_iter_dataset(options), self)


def _room(folder: Path) -> int:
    """What the cache may take on its disk: what it takes now, and what is free beyond a reserve."""
    return shutil.disk_usage(folder).free - _SPARE_BYTES + sum(entry.size for entry in entries(folder))


def shown_views(policy: Policy, seed: int, views: int) -> list[View]:
    """The stored views of a training photo; the photo as it is where nothing is augmented."""
    return [PLAIN] if policy == Policy() else [View(policy, seed, number) for number in range(views)]


@dataclass(frozen=True)
class Choice:
    """Where the activations of a phase are kept, in how many views and bytes; or, without a point, why they are not."""

    point: Point | None
    views: int = 0
    size: int = 0
    frozen_share: float = 0.0
    reason: str = ""


def choose(
    model: keras.Model, unfreeze: str | int, *, photos: tuple[int, int], views: int | None, epochs: int, policy: Policy,
    dtype: str, limit: int, folder: Path,
) -> Choice:  # fmt: skip
    """The cache of a phase that trains `unfreeze` for `epochs` epochs on (training, validation) `photos`.

    `views` None takes as many as fit, up to DEFAULT_VIEWS.
    """
    cut = cut_for(model, unfreeze)
    if cut is None:
        return Choice(None, reason="nothing is frozen")
    kept = cache_cut(model, cut)
    whole = work(model, features_of(model))
    share = work(model, cut) / whole
    if share < _LEAST_SHARE:
        return Choice(None, reason=f"the frozen part is only {100 * share:.0f} % of the network's work")
    point = Point("features" if unfreeze == "head" else kept.layer, kept.tensor, dtype)
    most = 1 if policy == Policy() else min(epochs, views or DEFAULT_VIEWS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = _room(folder)
    except OSError as error:
        return Choice(None, reason=f"{folder} cannot be used: {error.strerror}")
    for count in range(most, 0 if views is None else most - 1, -1):
        size = point.row_bytes * (count * photos[0] + photos[1])
        if size <= min(limit, free):
            return Choice(point, count, size, work(model, kept.tensor) / whole)
    allowed = f"--cache-size allows {limit / 1e9:.3g}" if limit <= free else f"the disk has {free / 1e9:.3g} to spare"
    return Choice(None, reason=f"{size / 1e9:.3g} GB would be needed; {allowed}")


def cached_splits(
    activations: Activations, train: Split, val: Split, *, point: Point, views: int, policy: Policy, seed: int,
    progress: Progress,
) -> tuple[CachedSplit, CachedSplit, Point]:  # fmt: skip
    """Training photos in `views` augmented views and validation photos as they are, as activations at one point.

    Returns the point too: where float16 overflows it is kept in bfloat16.
    """
    shown = shown_views(policy, seed, views)
    try:
        plain = activations.fill(val, [PLAIN], [point])
        stores = activations.fill(train, shown, [point], progress)
    except Overflow:
        if point.dtype != "float16":
            raise
        return cached_splits(
            activations, train, val, point=replace(point, dtype="bfloat16"), views=views, policy=policy, seed=seed,
            progress=progress,
        )  # fmt: skip
    return CachedSplit(train, [store for (store,) in stores]), CachedSplit(val, plain[0]), point
