"""A network as the graph that TensorBoard draws: a node a layer, in the stages that `--unfreeze` counts."""

import math
from typing import Any

import keras


def graph_of(model: keras.Model, stages: dict[str, list[str]]) -> Any:
    """The layers and operations of a functional model as a GraphDef, on any backend.

    `stages` are the names of the operations in each part of the model. A node lies in its stage, and has its layer's
    class, the shape of what it gives, and how many weights it has.
    """
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    stage_of = {name: stage for stage, names in stages.items() for name in names}
    graph, maker = GraphDef(), {}
    for operation in model.operations:
        path = f"{stage_of[operation.name]}/{operation.name}"
        node = graph.node.add(name=path, op=type(operation).__name__)
        outputs = keras.tree.flatten(operation.output)
        maker |= {id(tensor): path for tensor in outputs}
        if not isinstance(operation, keras.layers.InputLayer):
            node.input.extend(maker[id(tensor)] for tensor in keras.tree.flatten(operation.input))
        for tensor in outputs:
            shape = node.attr["_output_shapes"].list.shape.add()
            for size in tensor.shape:
                shape.dim.add(size=-1 if size is None else size)
        weights = sum(math.prod(weight.shape) for weight in getattr(operation, "weights", ()))
        if weights:
            node.attr["weights"].i = weights
    return graph
