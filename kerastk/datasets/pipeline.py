"""Photos as batches, by Grain. Order and draws are pure functions of our own; Grain carries them over threads.

Order depends on (seed, epoch) alone, a photo's augmentation on (seed, epoch, SHA-256 of its bytes) alone: the number of
threads and the other photos change neither.
"""

import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence

import grain
import numpy as np

from kerastk.datasets.augment import Policy, generator
from kerastk.datasets.check import Photo
from kerastk.datasets.images import decode
from kerastk.errors import DataError, PhotoError

Batch = tuple[np.ndarray, np.ndarray]


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of `count` photos in one epoch: a permutation that depends on (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


class Split:
    """The photos of one split as batches of ((batch, size, size, 3) uint8, (batch, classes) float32 one-hot).

    Iterating the training split gives an epoch; each further `iter` gives the next epoch, shuffled and augmented anew.
    All its batches are full: the last one of an epoch is filled up with photos from the epoch's start. The other
    splits come in order of path, plain, with a shorter last batch.

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
    ):
        self.photos = list(photos)
        self.classes = list(classes)
        self.training = policy is not None
        self.batch_size = min(batch_size, len(self.photos))
        self.failure: DataError | None = None
        self.waited = 0.0
        self._read, self._size, self._resize = read, image_size, resize
        self._policy, self._seed, self._threads = policy, seed, threads
        self._index = {name: number for number, name in enumerate(self.classes)}
        self._next_epoch = 0
        self._order = functools.lru_cache(maxsize=2)(functools.partial(epoch_order, len(self.photos), seed))

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return -(-len(self.photos) // self.batch_size)

    @property
    def truth(self) -> np.ndarray:
        """(photos,) int64: each photo's class number, in the order of an unshuffled pass."""
        return np.array([self._index[photo.label] for photo in self.photos], np.int64)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        epoch = self._next_epoch
        self._next_epoch += self.training
        return iter(self.batches(epoch, epoch + 1))

    def example(self, number: int, epoch: int = 0) -> Batch:
        """Photo `number` of the split as `epoch` shows it: ((size, size, 3) uint8, (classes,) float32)."""
        photo = self.photos[number]
        label = np.zeros(len(self.classes), np.float32)
        label[self._index[photo.label]] = 1
        try:
            data = self._read(photo.path)
            if hashlib.sha256(data).hexdigest() != photo.sha256:
                raise PhotoError("its content changed during the run")
            if self._policy is None:
                return decode(data, self._size, resize=self._resize), label
            random = generator(self._seed, epoch, photo.sha256)
            box = self._policy.crop.box(*self._canvas(photo), random) if self._policy.crop else None
            pixels = decode(data, self._size, resize=self._resize, box=box)
            for step in self._policy.steps:
                pixels = step(pixels, random)
            return np.ascontiguousarray(pixels), label
        except PhotoError as error:
            # TensorFlow would hide it in an error of its own; the trainer looks here.
            self.failure = DataError(f"{photo.path}: {error}. Put the photo back, or start a new run without it.")
            raise self.failure from None

    def _canvas(self, photo: Photo) -> tuple[int, int]:
        """Width and height of what is cropped: the photo, or the square that `resize` makes of the whole of it."""
        return (photo.width, photo.height) if self._resize == "crop" else (1, 1)

    def batches(self, first: int, last: int) -> grain.IterDataset:
        """The batches of epochs `first` to `last` - 1, one after another, as a Grain data set (`fit` takes it)."""
        count = len(self.photos)
        per_epoch = self.steps * self.batch_size if self.training else count

        def load(index: int) -> Batch:
            epoch, position = divmod(index, per_epoch)
            epoch += first
            number = self._order(epoch)[position % count] if self.training else position
            return self.example(int(number), epoch)

        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=4 * self.batch_size)
        photos = grain.MapDataset.range((last - first) * per_epoch).map(load).to_iter_dataset(options)
        return _Timed(photos.batch(self.batch_size), self)


class _Timed(grain.IterDataset):
    """Adds the time that the consumer waits for each batch to `split.waited`, in seconds."""

    def __init__(self, parent: grain.IterDataset, split: Split):
        super().__init__(parent)
        self._split = split

    def __iter__(self) -> grain.DatasetIterator:
        return _TimedIterator(iter(self._parent), self._split)


class _TimedIterator(grain.DatasetIterator):
    def __init__(self, parent: grain.DatasetIterator, split: Split):
        super().__init__(parent)
        self._split = split

    def __next__(self) -> Batch:
        start = time.perf_counter()
        try:
            return next(self._parent)
        finally:
            self._split.waited += time.perf_counter() - start

    def get_state(self) -> dict:
        return self._parent.get_state()

    def set_state(self, state: dict) -> None:
        self._parent.set_state(state)
