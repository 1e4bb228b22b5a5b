"""The rows of arrays as they are held: images uint8, vectors float32, labels as texts."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerastk.datasets.stored import InMemory, Stored
from kerastk.errors import DataError

Part = Stored | InMemory

_WANTED = "images are (items, height, width) or (items, height, width, 1 or 3), vectors (items, features)"
# Of three dimensions the last of which is 3 or 4, those with larger sides are one picture and no row of them.
_SMALL_SIDE = 16
# The bytes of a file of classes' names.
_MAX_NAMES = 2**16


def row_shape(part: Part) -> tuple[int, ...]:
    """The shape of one row as it is held: (height, width, channels) or (features,). Refuses what is neither."""
    shape, dtype = part.shape, part.dtype
    told = f"{part.where} is {dtype.name[:40]} of shape {str(shape)[:80]}"
    if dtype.hasobject:
        raise DataError(
            f"{told}. Images of different sizes cannot be one array; give a folder of photos and --image-size and "
            "--resize."
        )
    if dtype.kind not in "biuf":
        raise DataError(f"{told}; expected numbers: {_WANTED}.")
    if 0 in shape:
        raise DataError(f"{told}: there are no values in it. Expected rows: {_WANTED}.")
    if len(shape) == 2:
        return shape[1:]
    if len(shape) not in (3, 4):
        hint = " For one feature a row, x[:, None] makes vectors of it." if len(shape) == 1 else ""
        raise DataError(f"{told}: {_WANTED}.{hint}")
    if len(shape) == 3 and shape[-1] in (3, 4) and shape[1] > _SMALL_SIDE:
        raise DataError(f"{told}, as one picture has it: {_WANTED}. x[None] makes one row of it.")
    if len(shape) == 4 and shape[-1] not in (1, 3):
        hint = ""
        if shape[1] in (1, 3):
            hint = " If its channels come first, np.moveaxis(x, 1, -1) puts them last."
        elif shape[-1] == 4:
            hint = " If the fourth channel is transparency, x[..., :3] leaves it out."
        raise DataError(f"{told}: {_WANTED}.{hint}")
    if dtype.kind in "iu" and dtype != np.uint8:
        raise DataError(
            f"{told}; images are uint8 from 0 to 255, or floats from 0 to 1. If its values are from 0 to 255, "
            'x.astype("uint8") makes images of it.'
        )
    return (*shape[1:], 1) if len(shape) == 3 else shape[1:]


def held(parts: Sequence[Part], item: tuple[int, ...], rows: int) -> tuple[np.ndarray, list[str]]:
    """The rows of all parts, and a note where their values became others."""
    kind = np.dtype(np.uint8 if len(item) == 3 else np.float32)
    only = parts[0]
    if len(parts) == 1 and isinstance(only, InMemory) and only.dtype == kind and only.array.flags.c_contiguous:
        values = only.array.reshape(rows, *item)
        if len(item) == 1:
            _check_vectors(values, values, only, 0)
        return values, []
    values = np.empty((rows, *item), kind)
    first, notes = 0, []
    for part in parts:
        own = values[first : first + part.shape[0]]
        first += part.shape[0]
        direct = part.dtype == kind
        start = 0
        for block in part.blocks(own.reshape(part.shape) if direct else None):
            target = own[start : start + len(block)]
            if len(item) == 3 and not direct:
                target[...] = _pixels(block, part, start).reshape(target.shape)
            elif len(item) == 1:
                if not direct:
                    with np.errstate(over="ignore"):
                        target[...] = block
                _check_vectors(target, block, part, start)
            start += len(block)
        if len(item) == 3 and part.dtype.kind == "f":
            notes.append(f"{part.name}: values from 0 to 1 became 0 to 255, round(255 x)")
    return values, notes


def _pixels(block: np.ndarray, part: Part, start: int) -> np.ndarray:
    """Black and white, or values from 0 to 1, as 0 to 255."""
    if block.dtype.kind == "b":
        return block.astype(np.uint8) * 255
    wrong = ~((block >= 0) & (block <= 1))
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0])
        raise DataError(
            f"{part.where}, row {start + place[0]} holds {block[place]}; images of floats have values from 0 to 1, or "
            "are uint8 from 0 to 255. Scale them first."
        )
    return np.rint(block.astype(np.float32 if block.dtype.itemsize < 4 else block.dtype) * 255)


def _check_vectors(values: np.ndarray, before: np.ndarray, part: Part, start: int) -> None:
    """Refuse what is no number; `values` are those of `before` in float32."""
    good = np.isfinite(values)
    if not good.all():
        row, column = np.argwhere(~good)[0]
        large = np.isfinite(before[row, column])
        raise DataError(
            f"{part.where}, row {start + row}, column {column} is {before[row, column]}"
            f"{', too large for float32' if large else ''}; fill such values, or leave the row out."
        )


def texts(mark: Part, part: Part) -> list[str]:
    """The labels of a part's rows: whole numbers, truth values or texts."""
    told = f"{mark.where} is {mark.dtype.name[:40]} of shape {str(mark.shape)[:80]}"
    if mark.shape not in ((part.shape[0],), (part.shape[0], 1)):
        hint = " y.argmax(axis=1) makes class numbers of one-hot rows." if len(mark.shape) == 2 else ""
        raise DataError(f"{told}; expected one label for each of the {part.shape[0]:,} rows of {part.where}.{hint}")
    if mark.dtype.kind not in "biufUSO":
        raise DataError(f"{told}; labels are whole numbers or texts.")
    kinds, which = _different(mark.whole().reshape(-1), told)
    return [kinds[each] for each in which]


def _different(labels: np.ndarray, told: str) -> tuple[list[str], list[int]]:
    """The different labels as texts, and which of them each one is."""
    wrong = DataError(f"{told}; labels are whole numbers or texts, one a row.")
    if labels.dtype.kind == "O":
        if not all(isinstance(each, str) for each in labels):
            raise wrong
        same = {each: number for number, each in enumerate(dict.fromkeys(labels))}
        return list(same), [same[each] for each in labels]
    if labels.dtype.kind == "U":
        labels = np.ascontiguousarray(labels, labels.dtype.newbyteorder("="))
        # NumPy fails on numbers that are no characters.
        if labels.view(np.uint32).max() > sys.maxunicode:
            raise wrong
    different, which = np.unique(labels, return_inverse=True)
    if different.dtype.kind == "f":
        if not (np.isfinite(different).all() and (different == np.rint(different)).all()):
            raise wrong
        return [str(int(each)) for each in different], which.tolist()
    return [_text(each) for each in different.tolist()], which.tolist()


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def class_names(data: bytes, where: str) -> list[str]:
    """The names in a text, a line each, the first for label 0; empty lines say nothing.

    Raises:
        DataError: it is no text of that kind, or a name stands there twice.
    """
    if len(data) > _MAX_NAMES:
        raise DataError(f"{where} has {len(data):,} bytes; names of classes, a line each, have at most {_MAX_NAMES:,}.")
    try:
        names = [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is no text in UTF-8 (byte {error.start}); expected names of classes.") from None
    if "\0" in "".join(names):
        raise DataError(f"{where} holds a NUL character; expected names of classes, a line each.")
    for name, times in Counter(names).items():
        if times > 1:
            raise DataError(f"{where} names {name[:80]!r} {times} times; expected each class once.")
    return names
