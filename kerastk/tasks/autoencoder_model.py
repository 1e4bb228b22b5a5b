"""The autoencoder in a run folder: what labels.json says of it, and how it is opened again."""

import math
from typing import Any

import keras
import numpy as np

from kerastk.datasets.photos import PhotoData
from kerastk.errors import RecipeError, RunError
from kerastk.networks import saved
from kerastk.networks.autoencoder import Standard, decoder
from kerastk.recipe import Autoencode
from kerastk.run import Run
from kerastk.tasks.items import Data, shape_of, standard_of

# Values of an item, and characters of a column's name.
MAX_VALUES, MAX_NAME = 2**26, 32_768


def contract(recipe: Autoencode, data: Data) -> dict[str, Any]:
    """What a reconstructor must know to feed the model and to read its answers; goes into labels.json."""
    shape, standard = shape_of(data), standard_of(data)
    found: dict[str, Any] = {
        "task": recipe.task, "items": "images" if standard is None else "rows", "shape": list(shape),
        "latent": recipe.latent, "variational": recipe.variational, "score": "error",
    }  # fmt: skip
    if isinstance(data, PhotoData):
        found |= {"image_size": shape[0], "resize": recipe.resize or "crop", "colour": "RGB", "dtype": "uint8"}
    if standard is not None:
        found |= {"columns": data.columns, "mean": standard.mean.tolist(), "deviation": standard.deviation.tolist()}
    return found


def labels_of(run: Run) -> dict[str, Any]:
    """What `contract` wrote, and `classes`, from labels.json; of the right types and within their ranges.

    Raises:
        RunError: labels.json says something else.
    """
    labels = run.labels
    if not (_describes(labels) and (_images(labels) if labels["items"] == "images" else _rows(labels))):
        raise RunError(f"{run.labels_json} does not describe an autoencoder.")
    return labels


def _describes(labels: dict[str, Any]) -> bool:
    """What items of both sorts have."""
    classes, shape = labels.get("classes"), labels.get("shape")
    good = labels.get("task") == "autoencode" and labels.get("items") in ("images", "rows")
    good = good and labels.get("score") == "error" and isinstance(labels.get("variational"), bool)
    good = good and isinstance(classes, list) and all(isinstance(each, str) for each in classes)
    good = good and isinstance(shape, list) and all(_counts(side, MAX_VALUES) for side in shape)
    return good and math.prod(shape) <= MAX_VALUES and _valid(latent=labels.get("latent"))


def _images(labels: dict[str, Any]) -> bool:
    shape, size = labels["shape"], labels.get("image_size")
    if len(shape) != 3 or shape[2] not in (1, 3):
        return False
    if size is None and labels.get("resize") is None:
        return True
    return shape == [size, size, 3] and _valid(image_size=size, resize=labels.get("resize"))


def _rows(labels: dict[str, Any]) -> bool:
    shape, columns = labels["shape"], labels.get("columns")
    if len(shape) != 1:
        return False
    if columns is not None:
        good = isinstance(columns, list) and len(columns) == shape[0]
        if not good or not all(isinstance(name, str) and len(name) <= MAX_NAME for name in columns):
            return False
    return _numbers(labels.get("mean"), shape[0], -math.inf) and _numbers(labels.get("deviation"), shape[0], 0.0)


def _valid(**fields: Any) -> bool:
    """Whether these are fields of a recipe, all given and within their ranges."""
    try:
        Autoencode(**fields)
    except RecipeError:
        return False
    return None not in fields.values()


def _counts(value: Any, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= high


def _numbers(values: Any, count: int, above: float) -> bool:
    """Whether these are so many numbers that float32 has, each larger than `above`."""
    if not isinstance(values, list) or len(values) != count:
        return False
    if not all(isinstance(each, float | int) and not isinstance(each, bool) for each in values):
        return False
    return all(abs(each) < 1e38 and each > above for each in values)


def standard_in(labels: dict[str, Any]) -> Standard | None:
    """Mean and deviation of each number of a row, from checked labels; None of images."""
    if labels["items"] == "images":
        return None
    return Standard(np.array(labels["mean"], np.float64), np.array(labels["deviation"], np.float64))


def load_model(run: Run, *, last: bool = False) -> keras.Model:
    """The best model of a run folder, or the last, which may come from anybody; see `networks.saved`.

    Raises:
        RunError: the run is no autoencoder, its model is not the one that labels.json describes, or the last one was
            not kept.
        WeightsError: the file is missing or damaged, or is no model of `networks`.
    """
    labels, path = labels_of(run), run.kept(last)
    model = saved.load(path)
    try:
        fits = _fits(model, labels)
    except (ValueError, TypeError, AttributeError):
        # It is no network of layers, has no decoder, or units that are no numbers.
        fits = False
    if not fits:
        raise RunError(f"{path} and {run.labels_json} do not belong together.")
    return model


def _fits(model: keras.Model, labels: dict[str, Any]) -> bool:
    shape, latent, is_image = tuple(labels["shape"]), labels["latent"], labels["items"] == "images"
    wanted = {"code": (None, latent), "reconstruction": (None, *shape)}
    if labels["variational"]:
        wanted["log_variance"] = (None, latent)
    item, outputs = model.input, model.output
    if not isinstance(item, keras.KerasTensor) or not isinstance(outputs, dict):
        return False
    if tuple(item.shape) != (None, *shape) or item.dtype != ("uint8" if is_image else "float32"):
        return False
    found = {name: tuple(each.shape) for name, each in outputs.items() if isinstance(each, keras.KerasTensor)}
    if found != wanted or len(found) != len(outputs):
        return False
    # Refused by Keras where more than the code decides what the reconstruction is.
    decoder(model)
    return is_image or _same_units(model, labels)


def _same_units(model: keras.Model, labels: dict[str, Any]) -> bool:
    """Whether the network gives rows back in the units that labels.json tells."""
    standard, layer = standard_in(labels), model.get_layer("reconstruction")
    pairs = ((layer.scale, standard.deviation), (layer.offset, standard.mean))
    return all(
        np.shape(theirs) == ours.shape and np.allclose(np.array(theirs, np.float64), ours, rtol=1e-6, atol=0)
        for theirs, ours in pairs
    )
