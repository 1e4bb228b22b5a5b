"""A functional model as one list of the calls of its operations, nested models opened."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True, eq=False)
class Values:
    """What one call gives and others take; each is itself alone, whatever its shape (batch, ...)."""

    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Call:
    """An operation at one place of the graph; a layer that is shared has several. An input has no `inputs`.

    `name` is the operation's, in a nested model `model/operation`.
    """

    name: str
    operation: keras.Operation
    inputs: tuple[Values, ...]
    outputs: tuple[Values, ...]


def calls(model: keras.Model) -> list[Call]:
    """All calls of a functional model, each behind those that it takes its inputs from.

    Raises:
        ValueError: the model is no graph of layers.
    """
    if not _is_graph(model):
        raise ValueError(f"{model.name} is no functional model, so its layers cannot be told.")
    return list(_calls(model, "", None))


def _calls(model: keras.Model, prefix: str, given: list[Values] | None) -> Iterator[Call]:
    """The calls of a model on `given` values, or on inputs of its own; it returns what comes out."""
    graph = keras.Model(model.inputs, model.outputs) if isinstance(model, keras.Sequential) else model
    values = dict(zip(map(id, graph.inputs), given, strict=True)) if given is not None else {}
    for node in _nodes(graph):
        operation, name = node.operation, prefix + node.operation.name
        if isinstance(operation, keras.layers.InputLayer):
            if given is None:
                made = tuple(Values(tuple(tensor.shape)) for tensor in node.output_tensors)
                yield Call(name, operation, (), made)
                values |= zip(map(id, node.output_tensors), made, strict=True)
            continue
        inputs = tuple(values[id(tensor)] for tensor in node.input_tensors)
        if _is_graph(operation):
            made = yield from _calls(operation, f"{name}/", list(inputs))
        else:
            made = tuple(Values(tuple(tensor.shape)) for tensor in node.output_tensors)
            yield Call(name, operation, inputs, made)
        values |= zip(map(id, node.output_tensors), made, strict=True)
    return tuple(values[id(tensor)] for tensor in graph.outputs)


def _nodes(graph: keras.Model) -> list[Any]:
    # `operation.input` and `.output` are those of an operation's first call, which may be one in another model.
    by_depth = graph._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def _is_graph(operation: keras.Operation) -> bool:
    """Whether it is a model whose layers can be walked."""
    if isinstance(operation, keras.Sequential):
        return operation.built
    return isinstance(operation, keras.Model) and hasattr(operation, "_nodes_by_depth")
