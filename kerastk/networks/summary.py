"""What a network is made of: its layers with their shapes, parameters, work, and what they see of an image."""

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kerastk.networks.calls import Call, calls
from kerastk.networks.counting import multiply_adds
from kerastk.networks.receptive import fields

_FLOAT32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Row:
    """A layer or operation; one in a nested model is called `model/layer`.

    `shape` is that of its (first) output without the batch; `trained` and `untrained` count parameters, those of a
    layer that stands in several places at the first; `macs` are multiply-adds for one item (see `Summary.per`), None
    for a kind that is not known. `receptive_field` is how many pixels (height, width) of the image a place sees,
    padding included, and `stride` how many lie between two places; both None where places are no places of an image
    any more (pooled globally or flattened), or of no image.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]
    trained: int
    untrained: int
    macs: int | None
    receptive_field: tuple[int, int] | None
    stride: tuple[float, float] | None

    @property
    def parameters(self) -> int:
        """Trained or not."""
        return self.trained + self.untrained


@dataclass(frozen=True, kw_only=True)
class Stage(Row):
    """Several rows as one: sums, the shape of the last, and what the last maps among them see.

    `kind` says how many rows they are; `macs` are those that are known.
    """

    at_least: bool


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All of a network. `macs` are those of convolutions and matrix products; `at_least` says that some are not known.

    `per` says for what work is counted: an `image`, a `row`, or where the length of items is free (sentences) a `step`,
    which is one word, spelled with one character. `inputs` are shapes without the batch; `receptive_field` and
    `stride` are those of the last maps, from which features are pooled.
    """

    inputs: dict[str, tuple[int | None, ...]]
    rows: tuple[Row, ...]
    trained: int
    untrained: int
    macs: int
    at_least: bool
    per: str
    receptive_field: tuple[int, int] | None
    stride: tuple[float, float] | None

    @property
    def parameters(self) -> int:
        """Trained or not."""
        return self.trained + self.untrained

    @property
    def bytes(self) -> int:
        """Of the parameters as float32."""
        return self.parameters * _FLOAT32_BYTES

    @property
    def flops(self) -> int:
        """Multiplications and additions, each counted as one."""
        return 2 * self.macs

    def by_stage(self, stages: Mapping[str, Sequence[str]]) -> list[Stage]:
        """A row for each part of the network; `stages` are the names of the operations in each, as tasks have them."""
        stage_of = {name: stage for stage, names in stages.items() for name in names}
        parts: dict[str, list[Row]] = {stage: [] for stage in stages}
        for row in self.rows:
            parts[stage_of[row.name.partition("/")[0]]].append(row)
        return [_stage(name, rows) for name, rows in parts.items() if rows]

    def as_json(self) -> dict[str, Any]:
        """All of it as what JSON knows."""
        sums = {name: getattr(self, name) for name in ("parameters", "bytes", "flops")}
        return {**dataclasses.asdict(self), **sums}


def summary(model: keras.Model) -> Summary:
    """What a functional model does with one item, whatever its weights.

    Raises:
        ValueError: the model is no graph of layers.

    >>> network = summary(keras.applications.VGG16(weights=None))
    >>> network.parameters, network.macs, network.receptive_field
    (138357544, 15470264320, (212, 212))
    """
    found = calls(model)
    rows = tuple(_rows(found))
    maps = _last_maps(rows)
    inputs = {tensor.name: tuple(tensor.shape[1:]) for tensor in model.inputs}
    return Summary(
        inputs=inputs,
        rows=rows,
        **_sums(rows),
        at_least=any(row.macs is None for row in rows),
        per=_unit(inputs.values()),
        receptive_field=maps and maps.receptive_field,
        stride=maps and maps.stride,
    )


def _unit(shapes: Collection[tuple[int | None, ...]]) -> str:
    if any(len(shape) == 3 for shape in shapes):
        return "image"
    return "step" if any(None in shape for shape in shapes) else "row"


def _rows(found: Sequence[Call]) -> Iterator[Row]:
    seen, counted = fields(found), set()
    for call in found:
        if not call.inputs:
            continue
        new = [each for each in getattr(call.operation, "weights", ()) if id(each) not in counted]
        counted |= {id(weight) for weight in new}
        trained = {id(weight) for weight in getattr(call.operation, "trainable_weights", ())}
        field = seen[call.outputs[0]]
        axes = field if isinstance(field, tuple) else None
        yield Row(
            name=call.name,
            kind=type(call.operation).__name__,
            shape=call.outputs[0].shape[1:],
            trained=sum(math.prod(weight.shape) for weight in new if id(weight) in trained),
            untrained=sum(math.prod(weight.shape) for weight in new if id(weight) not in trained),
            macs=multiply_adds(call),
            receptive_field=axes and tuple(axis.size for axis in axes),
            stride=axes and tuple(axis.stride for axis in axes),
        )


def _stage(name: str, rows: Sequence[Row]) -> Stage:
    maps = _last_maps(rows)
    return Stage(
        name=name,
        kind=f"{len(rows)} operations" if len(rows) > 1 else rows[0].kind,
        shape=rows[-1].shape,
        **_sums(rows),
        receptive_field=maps and maps.receptive_field,
        stride=maps and maps.stride,
        at_least=any(row.macs is None for row in rows),
    )


def _last_maps(rows: Sequence[Row]) -> Row | None:
    return next((row for row in reversed(rows) if row.receptive_field is not None), None)


def _sums(rows: Sequence[Row]) -> dict[str, int]:
    return {name: sum(getattr(row, name) or 0 for row in rows) for name in ("trained", "untrained", "macs")}
