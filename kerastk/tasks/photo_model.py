"""The classifier of photos in a run folder: what labels.json says of it, and how it is opened again."""

from typing import Any

import keras

from kerastk.errors import RecipeError, RunError
from kerastk.networks import saved
from kerastk.networks.classifier import has_head
from kerastk.networks.cuts import features
from kerastk.recipe import TASKS, Classify, Images
from kerastk.run import Run
from kerastk.tasks.items import Data, shape_of

MAX_CLASSES = 100_000
# The field that says which network it is, by the task.
NAMED = {"finetune": "base", "classify": "net"}
# What the numbers beside the labels are.
SCORES = {
    "dense": "probabilities",
    "svm": "softmax of decision values: their order means something, they are no probabilities",
    "knn": "shares of the nearest neighbours' votes",
}


def contract(recipe: Images, data: Data) -> dict[str, Any]:
    """What a predictor must know to feed the model and to read its answers; goes into labels.json."""
    named = NAMED[recipe.task]
    return {
        "task": recipe.task,
        named: getattr(recipe, named),
        "head": recipe.head,
        "scores": SCORES[recipe.head],
        "image_size": recipe.image_size,
        "resize": recipe.resize,
        "colour": "L" if shape_of(data)[2] == 1 else "RGB",
        "dtype": "uint8",
    }


def labels_of(run: Run) -> dict[str, Any]:
    """What `contract` wrote, and `classes`, from labels.json; of the right types and within their ranges.

    Raises:
        RunError: labels.json says something else.
    """
    labels = run.labels
    task, classes = labels.get("task"), labels.get("classes")
    good = isinstance(task, str) and task in NAMED and isinstance(classes, list)
    good = good and 0 < len(classes) <= MAX_CLASSES and all(isinstance(each, str) for each in classes)
    if good:
        fields = {name: labels.get(name) for name in (NAMED[task], "image_size", "resize", "head")}
        good = None not in fields.values() and labels.get("colour") in ("RGB", "L")
        if task == "classify":
            good = good and fields.pop("head") == Classify.head
        try:
            TASKS[task](**fields)
        except RecipeError:
            good = False
    if not good:
        raise RunError(f"{run.labels_json} does not describe a classifier of photos.")
    return labels


def shape_in(labels: dict[str, Any]) -> tuple[int, int, int]:
    """The shape of an image as the model takes it, by labels.json."""
    return labels["image_size"], labels["image_size"], 1 if labels["colour"] == "L" else 3


def load_model(run: Run, *, last: bool = False) -> keras.Model:
    """The best model of a run folder, or the last, which may come from anybody; see `networks.saved`.

    Raises:
        RunError: the run is no classifier of photos, its model is not the one that labels.json describes, or the last
            one was not kept.
        WeightsError: the file is missing or damaged, or is no model of `networks`.
    """
    labels, path = labels_of(run), run.kept(last)
    model = saved.load(path)
    if not _fits(model, labels):
        raise RunError(f"{path} and {run.labels_json} do not belong together.")
    return model


def _fits(model: keras.Model, labels: dict[str, Any]) -> bool:
    shape, classes = (None, *shape_in(labels)), len(labels["classes"])
    shapes = [tuple(each.shape) for each in (*model.inputs, *model.outputs)]
    if labels["head"] == "knn":
        return len(shapes) == 2 and shapes[0] == shape and len(shapes[1]) == 2
    heads = [layer for layer in model.layers if layer.name == "head"]
    if shapes != [shape, (None, classes)] or not heads or not has_head(model):
        return False
    return [tuple(each.shape) for each in heads[0].weights] == [(features(model).shape[-1], classes), (classes,)]
