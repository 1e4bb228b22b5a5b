"""Photos as batches, by Grain. Order and draws are pure functions of our own; Grain carries them over threads.

Order depends on (seed, epoch) alone, a photo's augmentation on (seed, epoch, SHA-256 of its bytes) alone: the number of
threads and the other photos change neither.
"""

import functools
import hashlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from kerastk.datasets.augment import Policy, generator
from kerastk.datasets.check import Photo
from kerastk.datasets.images import decode, fit, open_photo
from kerastk.errors import DataError, PhotoError

Batch = tuple[np.ndarray, np.ndarray]
# Keeps these draws apart from all others of a seed.
_VARYING = 0x6D6978
# Of a batch, each loaded by one thread: Grain (0.2.18) counts what is ready each time that it gives an element, and
# with single photos that took longer than to load them.
_PIECES = 16


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of `count` photos in one epoch: a permutation that depends on (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def balanced_order(truth: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """As many photos as there are, each class as often as every other (to within one), in a random order.

    `truth` is (photos,) class numbers. Those of a small class come several times before those of a large one have all
    been seen. Depends on (truth, seed, epoch) alone.
    """
    random = np.random.default_rng([seed, epoch])
    classes = [random.permutation(np.flatnonzero(truth == number)) for number in np.unique(truth)]
    counts = np.full(len(classes), len(truth) // len(classes))
    counts[random.permutation(len(classes))[: len(truth) % len(classes)]] += 1
    return random.permutation(np.concatenate([np.resize(*each) for each in zip(classes, counts, strict=True)]))


class Rows:
    """Labelled items in batches; a subclass says what a batch holds (`batches`).

    In training the order is a new one each epoch, and all batches are full: the last one of an epoch is filled up with
    items from the epoch's start; with `balanced` each class comes as often as every other. Else they come in their own
    order, with a shorter last batch.

    Iterating the training split gives an epoch; each further `iter` gives the next one. `waited` counts the seconds
    that the consumer of `batches` waited, `decoding` the processor's seconds for reading, decoding and augmenting, over
    all threads; `failure` is the error that ended one, if any.
    """

    # What is counted where the speed is told.
    noun = "photos"

    def __init__(
        self, photos: Sequence[Photo], classes: Sequence[str], *, batch_size: int, training: bool, seed: int,
        balanced: bool = False,
    ):  # fmt: skip
        self.photos = list(photos)
        self.classes = list(classes)
        self.training, self.balanced = training, balanced
        self.batch_size = min(batch_size, len(self.photos))
        self.seed = seed
        self.failure: DataError | None = None
        self.waited = self.decoding = 0.0
        self._next_epoch = 0
        self._index = {name: number for number, name in enumerate(self.classes)}

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return -(-len(self.photos) // self.batch_size)

    @property
    def per_step(self) -> float:
        """Items a training batch, on average."""
        return self.batch_size

    @functools.cached_property
    def truth(self) -> np.ndarray:
        """(photos,) int64: each photo's class number, in the order of an unshuffled pass."""
        return np.array([self._index[photo.label] for photo in self.photos], np.int64)

    def truth_of(self, number: int) -> int:
        """The class number of one photo."""
        return self._index[self.photos[number].label]

    def numbers(self, epoch: int) -> np.ndarray:
        """Which photo stands at each place of an epoch."""
        if not self.training:
            return np.arange(len(self.photos))
        if self.balanced:
            order = balanced_order(self.truth, self.seed, epoch)
        else:
            order = epoch_order(len(self.photos), self.seed, epoch)
        return np.resize(order, self.steps * self.batch_size)

    def batches(self, first: int, last: int, skip: int = 0) -> grain.IterDataset:
        """The batches of epochs `first` to `last` - 1, one after another, as a Grain data set (`fit` takes it).

        Without the first `skip` batches; the others are what they would be with them.
        """
        raise NotImplementedError

    @property
    def shown(self) -> list[Any]:
        """Two batches of the smallest and the largest shape, where they differ in shape; else none."""
        return []

    def __iter__(self) -> Iterator[Any]:
        epoch = self._next_epoch
        self._next_epoch += self.training
        return iter(self.batches(epoch, epoch + 1))

    def __len__(self) -> int:
        return self.steps


class Split(Rows):
    """The photos of one split as batches of ((batch, size, size, 3) uint8, (batch, classes) float32 one-hot).

    The training split is the one with a `policy`; the photos of the others come in order of path, plain.

    >>> for images, labels in kerastk.open_data(recipe).train:
    ...     model.train_on_batch(images, labels)
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        read: Callable[[str], bytes],
        *,
        classes: Sequence[str],
        image_size: int,
        resize: str,
        batch_size: int,
        threads: int,
        policy: Policy | None = None,
        seed: int = 0,
        balanced: bool = False,
    ):
        super().__init__(
            photos, classes, batch_size=batch_size, training=policy is not None, seed=seed, balanced=balanced
        )
        self.policy = policy
        self.image_size, self.resize = image_size, resize
        self._read, self._threads = read, threads
        self._adding = threading.Lock()

    def example(self, number: int, epoch: int = 0) -> Batch:
        """Photo `number` of the split as `epoch` shows it: ((size, size, 3) uint8, (classes,) float32)."""
        label = np.zeros(len(self.classes), np.float32)
        label[self.truth_of(number)] = 1
        return self._pixels(number, self.policy, self.seed, epoch), label

    def plain(self, image_size: int) -> "Split":
        """The same photos at another size, in order and not augmented."""
        return Split(
            self.photos, self._read, classes=self.classes, image_size=image_size, resize=self.resize,
            batch_size=self.batch_size, threads=self._threads,
        )  # fmt: skip

    def batches(self, first: int, last: int, skip: int = 0) -> grain.IterDataset:
        """See `Rows.batches`."""
        numbers = functools.lru_cache(maxsize=2)(self.numbers)
        per_epoch = len(numbers(first))

        def load(index: int) -> Batch:
            epoch, position = divmod(index, per_epoch)
            return self.example(int(numbers(first + epoch)[position]), first + epoch)

        places = range(skip * self.batch_size, (last - first) * per_epoch)
        return self._loaded(load, places, self.batch_size)

    def view(self, numbers: Sequence[int], policy: Policy, seed: int, epoch: int, *, batch: int) -> grain.IterDataset:
        """The photos `numbers`, in that order, as `policy` shows them in `epoch`: (batch, size, size, 3) uint8."""
        places = range(len(numbers))
        return self._loaded(lambda index: self._pixels(numbers[index], policy, seed, epoch), places, batch)

    def _loaded(self, load: Callable[[int], Any], places: range, batch: int) -> grain.IterDataset:
        pieces = min(batch, _PIECES)

        def piece(index: int) -> list[Any]:
            first, part = divmod(index, pieces)
            start, stop = (first * batch + each * batch // pieces for each in (part, part + 1))
            return [load(place) for place in places[start:stop]]

        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=4 * pieces)
        # The last batch may be a short one, of fewer pieces.
        parts = grain.MapDataset.range(-(-len(places) * pieces // batch)).map(piece).to_iter_dataset(options)
        return Timed(parts.batch(pieces, batch_fn=_joined), self)

    def _pixels(self, number: int, policy: Policy | None, seed: int, epoch: int) -> np.ndarray:
        photo = self.photos[number]
        begin = time.thread_time()
        try:
            data = self._read(photo.path)
            if hashlib.sha256(data).hexdigest() != photo.sha256:
                raise PhotoError("its content changed during the run")
            if policy is None:
                return decode(data, self.image_size, resize=self.resize)
            random = generator(seed, epoch, photo.sha256)
            box = policy.crop.box(*self._canvas(photo), random) if policy.crop else None
            square = fit(open_photo(data), self.image_size, resize=self.resize, box=box)
            return np.asarray(policy(square, random))
        except PhotoError as error:
            # TensorFlow would hide it in an error of its own; the trainer looks here.
            self.failure = DataError(f"{photo.path}: {error}. Put the photo back.")
            raise self.failure from None
        finally:
            with self._adding:
                self.decoding += time.thread_time() - begin

    def _canvas(self, photo: Photo) -> tuple[int, int]:
        """Width and height of what is cropped: the photo, or the square that `resize` makes of the whole of it."""
        return (photo.width, photo.height) if self.resize == "crop" else (1, 1)


def _joined(pieces: Sequence[list[Any]]) -> Any:
    """The items of all pieces as one batch: an array, or of items that are tuples a tuple of arrays."""
    items = list(itertools.chain.from_iterable(pieces))
    if isinstance(items[0], tuple):
        return tuple(np.stack(each) for each in zip(*items, strict=True))
    return np.stack(items)


# What is done to the items and labels of a batch by draws of a generator: inputs and targets of a network.
Vary = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[Any, Any]]
Mix = Callable[[np.ndarray, np.random.Generator], tuple[Any, np.ndarray, float]]


def paired(strength: float) -> Mix:
    """For Manifold Mixup: (items, partner, share) in place of a batch's items.

    `partner` (batch,) int32 is a permutation of the batch, `share` (batch,) float32 one number from Beta(strength,
    strength): what becomes of the items, and where, is the network's (`training.phases.FrozenPrefix`).
    """

    def mix(items: np.ndarray, random: np.random.Generator) -> tuple[tuple, np.ndarray, float]:
        share, partner = random.beta(strength, strength), random.permutation(len(items))
        return (items, partner.astype(np.int32), np.full(len(items), share, np.float32)), partner, share

    return mix


def blended(mixup: float, cutmix: float) -> Mix:
    """Each photo with a partner's laid over it (MixUp, Zhang et al. 2017, arXiv:1710.09412), or with a box cut from it
    (CutMix, Yun et al. 2019, arXiv:1905.04899).

    The shares come from Beta(mixup, mixup) and Beta(cutmix, cutmix); a strength of 0 leaves a way out, and of two ways
    each batch takes one or the other. Photos and what is made of them are (batch, size, size, 3) uint8.
    """

    def mix(items: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
        cuts = cutmix > 0 and (mixup == 0 or random.random() < 0.5)
        strength = cutmix if cuts else mixup
        share, partner = random.beta(strength, strength), random.permutation(len(items))
        if not cuts:
            blend = share * items.astype(np.float32) + (1 - share) * items[partner]
            return np.round(blend).astype(np.uint8), partner, share
        high, wide = items.shape[1:3]
        side = math.sqrt(1 - share)
        middle = random.uniform(0, high), random.uniform(0, wide)
        (top, bottom), (left, right) = (
            (max(0, round(at - side * length / 2)), min(length, round(at + side * length / 2)))
            for at, length in zip(middle, (high, wide), strict=True)
        )
        pasted = items.copy()
        pasted[:, top:bottom, left:right] = items[partner, top:bottom, left:right]
        return pasted, partner, 1 - (bottom - top) * (right - left) / (high * wide)

    return mix


def mixing(mix: Mix) -> Vary:
    """Items mixed by `mix`, and the labels with them: `share` of the own, the rest of the partner's."""

    def vary(items: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> tuple[Any, np.ndarray]:
        mixed, partner, share = mix(items, random)
        share = np.float32(share)
        return mixed, share * labels + (1 - share) * labels[partner]

    return vary


class Varied(grain.IterDataset):
    """Batches as `vary` makes them anew each time.

    The draws depend on (seed, step) alone; `first` is the number of the first batch since the training began.
    """

    def __init__(self, parent: grain.IterDataset, vary: Vary, seed: int, first: int):
        super().__init__(parent)
        self._vary, self._seed, self._first = vary, seed, first

    def __iter__(self) -> grain.DatasetIterator:
        return _VariedIterator(iter(self._parent), self._vary, self._seed, self._first)


class _VariedIterator(grain.DatasetIterator):
    def __init__(self, parent: grain.DatasetIterator, vary: Vary, seed: int, first: int):
        super().__init__(parent)
        self._vary, self._seed, self._step = vary, seed, first

    def __next__(self) -> tuple[Any, Any]:
        items, labels = next(self._parent)
        random = np.random.default_rng([self._seed, self._step, _VARYING])
        self._step += 1
        return self._vary(items, labels, random)

    def get_state(self) -> dict:
        return {"parent": self._parent.get_state(), "step": self._step}

    def set_state(self, state: dict) -> None:
        self._parent.set_state(state["parent"])
        self._step = state["step"]


class Shown(grain.IterDataset):
    """Batches of several shapes for one `fit`, which first looks at two to learn what shapes there are: at `shown`.

    Iterated once more, it is what it was made of.
    """

    def __init__(self, parent: grain.IterDataset, shown: Sequence[Any]):
        super().__init__(parent)
        self._shown: Sequence[Any] | None = shown

    def __iter__(self) -> grain.DatasetIterator:
        shown, self._shown = self._shown, None
        return iter(self._parent) if shown is None else _ShownIterator(shown)


class _ShownIterator(grain.DatasetIterator):
    def __init__(self, shown: Sequence[Any]):
        super().__init__()
        self._left = list(shown)

    def __next__(self) -> Any:
        if not self._left:
            raise StopIteration
        return self._left.pop(0)

    def get_state(self) -> dict:
        return {"left": len(self._left)}

    def set_state(self, state: dict) -> None:
        del self._left[: len(self._left) - state["left"]]


class Timed(grain.IterDataset):
    """Adds the time that the consumer waits for each batch to `rows.waited`, in seconds."""

    def __init__(self, parent: grain.IterDataset, rows: Rows):
        super().__init__(parent)
        self._rows = rows

    def __iter__(self) -> grain.DatasetIterator:
        return _TimedIterator(iter(self._parent), self._rows)


class _TimedIterator(grain.DatasetIterator):
    def __init__(self, parent: grain.DatasetIterator, rows: Rows):
        super().__init__(parent)
        self._rows = rows

    def __next__(self) -> Batch:
        start = time.perf_counter()
        try:
            return next(self._parent)
        finally:
            self._rows.waited += time.perf_counter() - start

    def get_state(self) -> dict:
        return self._parent.get_state()

    def set_state(self, state: dict) -> None:
        self._parent.set_state(state)
