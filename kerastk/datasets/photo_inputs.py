"""Photos as people hand them over: one in any form, or files, folders and archives, decoded a chunk at a time."""

import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from kerastk.datasets.archive import ARCHIVE, open_archive
from kerastk.datasets.files import Finding, folder_reader, read_file, walk
from kerastk.datasets.images import decode, from_pil, whole
from kerastk.datasets.source import natural_key
from kerastk.errors import DataError, PhotoError


class PhotoReader:
    """Makes of a photo in any form the uint8 pixels that a network takes; a subclass says which those are.

    Called with a path, the bytes of a file, a Pillow image, or a uint8 array (height, width, 3) or (height, width).
    """

    def __call__(self, photo: Any) -> np.ndarray:
        """The pixels. Raises PhotoError."""
        if isinstance(photo, bytes | bytearray | memoryview):
            return self.from_bytes(bytes(photo))
        if isinstance(photo, str | os.PathLike):
            return self._from_path(Path(photo))
        if isinstance(photo, Image.Image):
            return self.from_image(photo)
        if isinstance(photo, np.ndarray):
            if photo.dtype != np.uint8 or photo.ndim not in (2, 3) or (photo.ndim == 3 and photo.shape[2] != 3):
                raise PhotoError(
                    f"an array must be uint8 and (height, width, 3) or (height, width); got {photo.dtype} "
                    f"{photo.shape}. Floats have no agreed range: scale them to 0-255 yourself."
                )
            if 0 in photo.shape:
                raise PhotoError(f"an array of shape {photo.shape} has no pixels.")
            return self.from_array(photo)
        raise PhotoError(f"a photo must be a path, bytes, a Pillow image or an array; got {type(photo).__name__}.")

    def from_bytes(self, data: bytes) -> np.ndarray:
        """The pixels of a file. Raises PhotoError."""
        raise NotImplementedError

    def from_image(self, image: Image.Image) -> np.ndarray:
        """The pixels of a Pillow image. Raises PhotoError."""
        raise NotImplementedError

    def from_array(self, array: np.ndarray) -> np.ndarray:
        """The pixels of (height, width, 3) or (height, width) uint8. Raises PhotoError."""
        raise NotImplementedError

    def _from_path(self, path: Path) -> np.ndarray:
        try:
            return self.from_bytes(read_file(path))
        except PhotoError as error:
            raise PhotoError(f"{path}: {error}", error.kind) from None


class SquareReader(PhotoReader):
    """Photos as squares, (size, size, 3) RGB: what `images.decode` makes of them; (size, size, 1) where they are to be
    grey."""

    def __init__(self, size: int, resize: str, *, grey: bool = False):
        self.size, self.resize, self.grey = size, resize, grey

    def from_bytes(self, data: bytes) -> np.ndarray:
        """See `PhotoReader`."""
        return self._coloured(decode(data, self.size, resize=self.resize))

    def from_image(self, image: Image.Image) -> np.ndarray:
        """See `PhotoReader`."""
        return self._coloured(from_pil(image, self.size, resize=self.resize))

    def from_array(self, array: np.ndarray) -> np.ndarray:
        """See `PhotoReader`; one that has the size already comes out as it is."""
        return self._coloured(from_pil(Image.fromarray(array), self.size, resize=self.resize))

    def _coloured(self, pixels: np.ndarray) -> np.ndarray:
        # Of what is grey already Pillow's grey is each of its colours, to the bit.
        return np.asarray(Image.fromarray(pixels).convert("L"))[..., None] if self.grey else pixels


class ExactReader(PhotoReader):
    """Photos that have the size (height, width, 1 or 3) already, pixel by pixel; where it is 1, grey ones."""

    def __init__(self, shape: Sequence[int]):
        self.shape = tuple(shape)

    def from_bytes(self, data: bytes) -> np.ndarray:
        """See `PhotoReader`."""
        return self.from_array(whole(data))

    def from_image(self, image: Image.Image) -> np.ndarray:
        """See `PhotoReader`."""
        file = io.BytesIO()
        try:
            ImageOps.exif_transpose(image).save(file, "PNG")
        except MemoryError:
            raise
        except Exception as error:
            # What Pillow cannot decode, or PNG has no mode for.
            raise PhotoError(f"the pixels cannot be had ({str(error) or type(error).__name__})") from None
        return self.from_bytes(file.getvalue())

    def from_array(self, array: np.ndarray) -> np.ndarray:
        """See `PhotoReader`."""
        height, width, channels = self.shape
        if array.shape[:2] != (height, width):
            raise PhotoError(
                f"{array.shape[1]} x {array.shape[0]} pixels; the network learned arrays of {width} x {height}, which "
                "are not resized"
            )
        if array.ndim == 2:
            return np.repeat(array[..., None], channels, axis=2)
        if channels == 3:
            return array
        if (array != array[..., :1]).any():
            raise PhotoError('it is in colour, and the network learned grey images; Pillow\'s convert("L") makes one')
        return array[..., :1]


def existing(inputs: Iterable[str | os.PathLike]) -> list[Path]:
    """The inputs as paths. Raises DataError where one does not exist."""
    paths = [Path(each) for each in inputs]
    for path in paths:
        # Not Path.exists, which raises where the name is too long for any file.
        if not os.path.exists(path):
            raise DataError(f"no file or folder {str(path)!r}.")
    return paths


def photos(inputs: Iterable[str | os.PathLike]) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """(name, a function that reads its bytes) for every file of `inputs`: files, folders and their folders, archives.

    What cannot be listed or read has a function that raises PhotoError; hidden files are left out.

    Raises:
        DataError: an input does not exist (found before anything else is done).
    """
    for path in existing(inputs):
        if path.is_dir():
            yield from _listed(path, *walk(path), folder_reader(path))
        elif path.is_file() and ARCHIVE.search(path.name):
            try:
                listing = open_archive(path)
            except DataError as error:
                yield str(path), partial(_refuse, str(error))
            else:
                yield from _listed(path, *listing)
        else:
            yield str(path), partial(read_file, path)


def _listed(
    root: Path, names: list[str], findings: list[Finding], read: Callable[[str], bytes]
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    for name in sorted(names, key=natural_key):
        yield f"{root}/{name}", partial(read, name)
    for finding in findings:
        if finding.kind not in ("hidden", "empty-folder"):
            yield f"{root}/{finding.paths[0]}", partial(_refuse, finding.text)


def _refuse(reason: str) -> bytes:
    raise PhotoError(reason, "unreadable")


def decoded(
    files: Iterable[tuple[str, Callable[[], bytes]]], decoder: Callable[[bytes], np.ndarray], *, size: int,
    threads: int | None = None,
) -> Iterator[tuple[list[str], list[np.ndarray | PhotoError]]]:  # fmt: skip
    """Files, as `photos` gives them, in chunks of `size`: their names, and their pixels or why there are none.

    While a chunk is looked at the next one is decoded, and no more than that.
    """

    def load(item: tuple[str, Callable[[], bytes]]) -> np.ndarray | PhotoError:
        try:
            return decoder(item[1]())
        except PhotoError as error:
            return error

    with ThreadPoolExecutor(threads or min(16, os.cpu_count() or 1)) as pool:
        waiting: list[tuple[list[str], list]] = []
        for chunk in itertools.chain(chunks(files, size), [None]):
            if chunk is not None:
                waiting.append(([name for name, _ in chunk], [pool.submit(load, item) for item in chunk]))
            while waiting and (len(waiting) > 1 or chunk is None):
                names, futures = waiting.pop(0)
                yield names, [future.result() for future in futures]


def chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Items in lists of `size`; the last one may be shorter."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
