"""What part of an image a place of a network's maps sees, by arithmetic on the graph.

Araujo et al. 2019, Distill, "Computing Receptive Fields of Convolutional Neural Networks". The windows here are exact
on every path, enlarging layers included, and reach into the padding: nothing ends at an image's border.

Two things count as seeing nothing, else all maps behind them would see all of the image: what a globally pooled branch
multiplies or adds (the gates of squeeze-and-excite), and the statistics of a normalisation.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kerastk.networks.calls import Call, Values
from kerastk.networks.counting import POINTWISE

# Looks (windows of a pattern, times the size of a kernel) that no network of anybody's needs; a model's file may be
# anybody's.
_MOST_LOOKS = 2**16
_REDUCTIONS = {"Amax", "Amin", "Max", "Mean", "Min", "Sum"}


@dataclass(frozen=True)
class Axis:
    """What the places along one axis of a map see: the first and the last pixel of each, None for a place without any.

    `windows` are those of the places 0, 1, ..., until the pattern repeats, `step` pixels on. An image is
    `Axis(((0, 0),), 1)`.
    """

    windows: tuple[tuple[int, int] | None, ...]
    step: int

    @property
    def size(self) -> int:
        """Pixels of the largest window."""
        return max((last - first + 1 for first, last in filter(None, self.windows)), default=0)

    @property
    def stride(self) -> float:
        """Pixels from a place to the next, on average."""
        return self.step / len(self.windows)

    def at(self, place: int) -> tuple[int, int] | None:
        """The window of any place."""
        times, rest = divmod(place, len(self.windows))
        window = self.windows[rest]
        return None if window is None else (window[0] + times * self.step, window[1] + times * self.step)

    def convolved(self, size: int, *, stride: int = 1, dilation: int = 1, before: int = 0) -> "Axis | None":
        """Behind a kernel of `size` or a pooling, with `before` places of padding."""
        period = len(self.windows) // math.gcd(len(self.windows), stride)
        step = self.step * stride * period // len(self.windows)
        return self._looking(
            period, step, size, lambda place: range(place * stride - before, place * stride - before + size * dilation,
                                                    dilation)
        )  # fmt: skip

    def enlarged(self, factor: int, *, blended: bool = False) -> "Axis | None":
        """Each place `factor` times; `blended` takes its neighbour into account (bilinear)."""

        def looks(place: int) -> Iterable[int]:
            if not blended:
                return (place // factor,)
            centre = 2 * place + 1 - factor
            return (centre // (2 * factor), -(-centre // (2 * factor)))

        return self._looking(len(self.windows) * factor, self.step, 2, looks)

    def transposed(self, size: int, *, stride: int, dilation: int, before: int) -> "Axis | None":
        """Behind a transposed convolution that cuts `before` places off its beginning."""

        def looks(place: int) -> Iterable[int]:
            taps = (place + before - tap * dilation for tap in range(size))
            return (tap // stride for tap in taps if tap % stride == 0)

        return self._looking(len(self.windows) * stride, self.step, size, looks)

    def _looking(self, period: int, step: int, size: int, looks: Callable[[int], Iterable[int]]) -> "Axis | None":
        if period * size > _MOST_LOOKS:
            return None
        windows = []
        for place in range(period):
            found = [window for window in map(self.at, looks(place)) if window is not None]
            windows.append((min(first for first, _ in found), max(last for _, last in found)) if found else None)
        return Axis(tuple(windows), step)


# Of height and width; of all of the image, where places are no places of it any more; not known, or no image.
Field = tuple[Axis, Axis] | Literal["whole"] | None
WHOLE: Literal["whole"] = "whole"
PIXEL = Axis(((0, 0),), 1)


def fields(calls: Iterable[Call]) -> dict[Values, Field]:
    """What the places of all values in a network see; an input of four axes (batch, height, width, channels) is an
    image.
    """
    found: dict[Values, Field] = {}
    for call in calls:
        for values in call.outputs:
            if call.inputs:
                found[values] = _field(call.operation, [found[each] for each in call.inputs], call.inputs, values)
            else:
                found[values] = (PIXEL, PIXEL) if len(values.shape) == 4 else None
    return found


def _field(operation: Any, seen: Sequence[Field], inputs: Sequence[Values], output: Values) -> Field:
    kind = type(operation).__name__
    if None in seen or getattr(operation, "data_format", None) == "channels_first":
        return None
    if kind == "Flatten" or kind.startswith("Global") or all(field == WHOLE for field in seen):
        return WHOLE
    if kind in POINTWISE:
        return _joined(operation, seen, inputs, output)
    field = seen[0]
    if len(seen) > 1 or field == WHOLE:
        return None
    if kind in _REDUCTIONS:
        return _reduced(operation, field)
    if kind == "Dense" or (kind == "Reshape" and output.shape == inputs[0].shape):
        return field
    if kind == "Flip":
        return field if _axes(operation.axis) == {3} else None
    rule = _RULES.get(kind)
    if rule is None:
        return None
    found = [rule(operation, number, axis, inputs[0].shape[1 + number]) for number, axis in enumerate(field)]
    return None if None in found else tuple(found)


def _joined(operation: Any, seen: Sequence[Field], inputs: Sequence[Values], output: Values) -> Field:
    """The smallest windows that hold what all inputs see, gates left out."""
    if type(operation).__name__ == "Concatenate" and _axes(operation.axis) != {3}:
        return None
    places = output.shape[1:3]
    kept = [field for field, values in zip(seen, inputs, strict=True) if field != WHOLE and values.shape[1:3] == places]
    if not kept:
        return None
    found = [_hull(axes) for axes in zip(*kept, strict=True)]
    return None if None in found else tuple(found)


def _hull(axes: Sequence[Axis]) -> Axis | None:
    period = math.lcm(*(len(axis.windows) for axis in axes))
    steps = {axis.step * period // len(axis.windows) for axis in axes}
    if len({axis.stride for axis in axes}) > 1 or period > _MOST_LOOKS:
        return None
    windows = []
    for place in range(period):
        found = [window for axis in axes if (window := axis.at(place)) is not None]
        windows.append((min(first for first, _ in found), max(last for _, last in found)) if found else None)
    return Axis(tuple(windows), steps.pop())


def _reduced(operation: Any, field: tuple[Axis, Axis]) -> Field:
    axes = {1, 2} if operation.axis is None else _axes(operation.axis)
    if axes >= {1, 2}:
        return WHOLE
    return field if axes == {3} and operation.keepdims else None


def _axes(axis: int | Sequence[int] | None) -> set[int]:
    """Axes of maps (batch, height, width, channels) by their numbers from 0."""
    if axis is None:
        return {0, 1, 2, 3}
    return {each % 4 for each in ([axis] if isinstance(axis, int) else axis)}


def _kernel(layer: Any, number: int, axis: Axis, length: int | None) -> Axis | None:
    size, stride, dilation = (each[number] for each in (layer.kernel_size, layer.strides, layer.dilation_rate))
    before = _padding(layer, (size - 1) * dilation + 1, stride, length)
    return axis.convolved(size, stride=stride, dilation=dilation, before=before)


def _pooling(layer: Any, number: int, axis: Axis, length: int | None) -> Axis | None:
    size, stride = layer.pool_size[number], layer.strides[number]
    return axis.convolved(size, stride=stride, before=_padding(layer, size, stride, length))


def _padding(layer: Any, reach: int, stride: int, length: int | None) -> int:
    """Places in front that padding "same" adds; a free length is taken as a multiple of the stride."""
    if layer.padding != "same":
        return 0
    over = stride if length is None or length % stride == 0 else length % stride
    return max(reach - over, 0) // 2


def _kernel_transposed(layer: Any, number: int, axis: Axis, length: int | None) -> Axis | None:
    if layer.output_padding is not None:
        return None
    size, stride, dilation = (each[number] for each in (layer.kernel_size, layer.strides, layer.dilation_rate))
    before = max((size - 1) * dilation + 1 - stride, 0) // 2 if layer.padding == "same" else 0
    return axis.transposed(size, stride=stride, dilation=dilation, before=before)


def _upsampling(layer: Any, number: int, axis: Axis, length: int | None) -> Axis | None:
    if layer.interpolation not in ("nearest", "bilinear"):
        return None
    return axis.enlarged(layer.size[number], blended=layer.interpolation == "bilinear")


def _padded(operation: Any, number: int, axis: Axis, length: int | None) -> Axis | None:
    if operation.mode != "constant":
        return None
    widths = operation.pad_width
    return axis.convolved(1, before=widths[0][0] if len(widths) == 1 else widths[1 + number][0])


_RULES: dict[str, Callable[[Any, int, Axis, int | None], Axis | None]] = {
    **dict.fromkeys(("Conv2D", "DepthwiseConv2D", "SeparableConv2D"), _kernel),
    **dict.fromkeys(("AveragePooling2D", "MaxPooling2D"), _pooling),
    "Conv2DTranspose": _kernel_transposed,
    "UpSampling2D": _upsampling,
    "DepthToSpace": lambda operation, number, axis, length: axis.enlarged(operation.block_size),
    "ZeroPadding2D": lambda layer, number, axis, length: axis.convolved(1, before=layer.padding[number][0]),
    "Cropping2D": lambda layer, number, axis, length: axis.convolved(1, before=-layer.cropping[number][0]),
    "Pad": _padded,
}
