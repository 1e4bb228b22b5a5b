"""Where a network can be cut in two: the points at which one tensor alone is live, found in its graph."""

import math
from dataclasses import dataclass
from itertools import pairwise

import keras

from kerastk.errors import RecipeError
from kerastk.networks.calls import calls
from kerastk.networks.classifier import features
from kerastk.networks.counting import multiply_adds

# Valid padding takes a pixel or two off; a stage ends where the resolution falls clearly.
_DROP = 0.75
# Frozen layers may be computed again each epoch while they cost at most this share of what is trained.
_REPEATED_WORK = 0.05
# A training step is about a forward pass and two of the same size back.
TRAINING_WORK = 3


@dataclass(frozen=True)
class Cut:
    """A point where `tensor` alone separates what comes before from what comes after; `layer` made it.

    `place` is its number in the order of the graph's operations; `merges` says that it joins branches (the end of a
    residual, dense or inception block).
    """

    layer: str
    tensor: keras.KerasTensor
    place: int
    merges: bool


def cuts(model: keras.Model, end: keras.KerasTensor) -> list[Cut]:
    """All cuts between the model's input and `end`, from the input on.

    In any topological order, a tensor that all paths pass through is the only live one when it has been computed, and
    the other way round.
    """
    operations = keras.Model(model.input, end).operations
    last_use: dict[int, int] = {}
    for position, operation in enumerate(operations):
        for tensor in _flat(operation.input) if position else ():
            last_use[id(tensor)] = position
    found, live = [], {}
    for position, operation in enumerate(operations):
        for tensor in _flat(operation.output):
            live[id(tensor)] = tensor
        live = {key: tensor for key, tensor in live.items() if last_use.get(key, -1) > position or tensor is end}
        if len(live) == 1 and position:
            (tensor,) = live.values()
            if not found or found[-1].tensor is not tensor:
                found.append(Cut(operation.name, tensor, position, len(_flat(operation.input)) > 1))
    return found


def stages(model: keras.Model) -> list[Cut]:
    """The ends of the base's stages, from the input on, without the last (which ends at the features).

    A stage ends at the last cut before the resolution drops. Scaling, padding or pooling alone are no stage.
    """
    maps = [cut for cut in cuts(model, features(model)) if len(cut.tensor.shape) == 4]
    ends = [cut for cut, after in pairwise(maps) if after.tensor.shape[1] < _DROP * cut.tensor.shape[1]]
    whole = _learning(model, features(model))
    kept, below = [], 0
    for cut in ends:
        learning = _learning(model, cut.tensor)
        if below < learning < whole:
            kept.append(cut)
            below = learning
    return kept


def cut_for(model: keras.Model, unfreeze: str | int) -> keras.KerasTensor | None:
    """The tensor below which all is frozen when the head and `unfreeze` are trained; None where nothing is frozen.

    `unfreeze` is `head`, `all` or the number of stages from the top.

    Raises:
        RecipeError: the base has fewer stages.
    """
    if unfreeze == "head":
        return features(model)
    if unfreeze == "all":
        return None
    ends = stages(model)
    if unfreeze > len(ends) + 1:
        hint = f"it has {len(ends) + 1}" if ends else "it cannot be cut into stages"
        raise RecipeError(f"unfreeze {unfreeze}: the base has no so many stages; {hint}. Use head, all or fewer.")
    return None if unfreeze == len(ends) + 1 else ends[-unfreeze].tensor


def cache_cut(model: keras.Model, cut: keras.KerasTensor) -> Cut:
    """Where to keep the activations of a part that is frozen up to `cut`: at the smallest tensor shortly below it.

    In inverted bottlenecks (MobileNetV2, EfficientNet) a stage ends inside a block, where the tensor is widest; the
    block's narrow input is several times smaller, and the little between them is computed again. Of equal ones the
    deepest.
    """
    whole, frozen = work(model, features(model)), work(model, cut)
    allowed = min(_REPEATED_WORK * TRAINING_WORK * (whole - frozen), frozen / 2)
    near = [each for each in cuts(model, cut) if frozen - work(model, each.tensor) <= allowed]
    return min(reversed(near), key=lambda each: math.prod(each.tensor.shape[1:]))


def work(model: keras.Model, end: keras.KerasTensor) -> int:
    """Multiply-adds a photo from the input to `end`, of convolutions and dense layers."""
    return sum(multiply_adds(call) or 0 for call in calls(keras.Model(model.input, end)))


def kept_values(model: keras.Model) -> int:
    """Numbers a photo that a training step keeps for the way back: all outputs in the graph."""
    outputs = [tensor for operation in model.operations for tensor in _flat(operation.output)]
    return sum(math.prod(tensor.shape[1:]) for tensor in outputs)


def blocks(model: keras.Model) -> list[set[str]]:
    """The names of the layers with weights in each block, from the top: the head, the last block, the one before, ...

    A block ends where branches are joined, or with a stage.
    """
    ends = {cut.place for cut in cuts(model, features(model)) if cut.merges} | {cut.place for cut in stages(model)}
    parts: list[set[str]] = [set()]
    for place, operation in enumerate(keras.Model(model.input, features(model)).operations):
        if getattr(operation, "weights", None):
            parts[-1].add(operation.name)
        if place in ends:
            parts.append(set())
    return [{"head"}, *reversed([part for part in parts if part])]


def named_stages(model: keras.Model) -> dict[str, list[str]]:
    """The names of the operations in each stage, from the input on: `stage_1`, `stage_2`, ... and `head`."""
    ends = {cut.place for cut in stages(model)}
    found: dict[str, list[str]] = {"stage_1": []}
    for place, operation in enumerate(keras.Model(model.input, features(model)).operations):
        found[f"stage_{len(found)}"].append(operation.name)
        if place in ends:
            found[f"stage_{len(found) + 1}"] = []
    base = {name for names in found.values() for name in names}
    return {**found, "head": [operation.name for operation in model.operations if operation.name not in base]}


def split_at(model: keras.Model, cut: keras.KerasTensor) -> tuple[keras.Model, keras.Model]:
    """The part up to the cut and the part from it on; both share the model's layers."""
    return keras.Model(model.input, cut, name="prefix"), keras.Model(cut, model.output, name="tail")


def _learning(model: keras.Model, end: keras.KerasTensor) -> int:
    """How many layers before `end` have weights that training would change, frozen now or not."""
    layers = keras.Model(model.input, end).layers
    return sum(bool(each.weights) and not isinstance(each, keras.layers.Normalization) for each in layers)


def _flat(tensors: object) -> list[keras.KerasTensor]:
    return list(keras.tree.flatten(tensors))
