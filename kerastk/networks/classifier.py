"""A classifier on a pretrained base, built flat on its input: uint8 photos in, probabilities out.

The layers of the base stand in the model itself (no nested model), so that it can be cut and explained anywhere.
Names: `photo` (input), `features` (pooled, the input of) `head_dropout`, `head` (logits), `probabilities`.
"""

import warnings
from pathlib import Path

import keras

from kerastk.errors import RecipeError, WeightsError
from kerastk.networks import weights as weight_files
from kerastk.networks.bases import BASES
from kerastk.networks.mini import mini

# Of ImageNet, per channel R, G, B, on the scales that keras.applications use.
_CAFFE_MEAN = (123.68, 116.779, 103.939)
_TORCH_MEAN = (0.485, 0.456, 0.406)
_TORCH_DEVIATION = (0.229, 0.224, 0.225)


def classifier(base: str, *, classes: int, image_size: int, dropout: float, weights: str | Path | None) -> keras.Model:
    """An uncompiled classifier: (batch, image_size, image_size, 3) uint8 RGB -> (batch, classes) float32 probabilities.

    `weights` is "imagenet", None for random ones, or the path of a weights file without the head.

    Raises:
        RecipeError: the base does not take this image size.
        WeightsError: the weights cannot be had, or are not this base's.

    >>> classifier("mobilenet_v2", classes=5, image_size=96, dropout=0.2, weights=None).output.shape
    (None, 5)
    """
    row = BASES[base]
    if image_size < row.smallest:
        raise RecipeError(f"image_size must be at least {row.smallest} with {base}; got {image_size}.")
    photo = keras.Input((image_size, image_size, 3), dtype="uint8", name="photo")
    pixels = _scaled(photo, row.scaling)
    arguments = {"include_top": False, "input_tensor": pixels, "pooling": "avg", "weights": None}
    if row.alpha is not None:
        arguments["alpha"] = row.alpha
    path = _weights_file(base, weights)
    if path is not None and row.family == "EfficientNet" and _is_keras_file(base, path):
        # Only for weights="imagenet" does Keras put a second Rescaling into the first EfficientNets.
        weight_files.into_keras_cache(row, path)
        arguments["weights"] = "imagenet"
        path = None
    network = mini(pixels) if row.ships else getattr(keras.applications, row.function)(**arguments)
    if path is not None:
        _load(network, path, base)
    return with_head(photo, network.output, classes, dropout)


def with_new_head(model: keras.Model, *, classes: int, dropout: float, keep_head: bool) -> keras.Model:
    """The classifier of an earlier run with a head for `classes`; its old head's weights are kept on request."""
    new = with_head(model.input, features(model), classes, dropout)
    if keep_head and has_head(model):
        new.get_layer("head").set_weights(model.get_layer("head").get_weights())
    return new


def on_encoder(encoder: keras.Model, *, classes: int, dropout: float) -> keras.Model:
    """An uncompiled classifier on an encoder's codes: (batch, size, size, 3) uint8 -> (batch, classes) probabilities.

    It shares the encoder's layers (`networks.autoencoder`).
    """
    return with_head(encoder.input, encoder.output, classes, dropout)


def logits_model(model: keras.Model) -> keras.Model:
    """The same network up to its logits: what is trained (their cross-entropy is exact where a softmax saturates)."""
    return keras.Model(model.input, model.get_layer("head").output)


def features_model(model: keras.Model) -> keras.Model:
    """The same network up to its pooled features: (batch, size, size, 3) uint8 -> (batch, features)."""
    return keras.Model(model.input, features(model), name="features")


def features(model: keras.Model) -> keras.KerasTensor:
    """The pooled features, (batch, features): what the head sees; the output of a model without a head."""
    return model.get_layer("head_dropout").input if has_head(model) else model.output


def has_head(model: keras.Model) -> bool:
    """Whether the model answers with probabilities, and not with features."""
    return any(layer.name == "head_dropout" for layer in model.layers)


def with_head(photo: keras.KerasTensor, features: keras.KerasTensor, classes: int, dropout: float) -> keras.Model:
    """The classifier from an input to features, (batch, features), and on to the probabilities of `classes`."""
    dropped = keras.layers.Dropout(dropout, name="head_dropout")(features)
    logits = keras.layers.Dense(classes, name="head", dtype="float32")(dropped)
    probabilities = keras.layers.Softmax(name="probabilities", dtype="float32")(logits)
    return keras.Model(photo, probabilities, name="classifier")


def _scaled(photo: keras.KerasTensor, scaling: str) -> keras.KerasTensor:
    """The scaling that `preprocess_input` does, as layers that are saved with the model; always in float32."""
    if scaling == "caffe":
        offset = [-mean for mean in _CAFFE_MEAN]
        pixels = keras.layers.Rescaling(1.0, offset=offset, dtype="float32", name="scaling")(photo)
        return keras.ops.flip(pixels, axis=-1)
    if scaling == "torch":
        scale = [1 / (255 * deviation) for deviation in _TORCH_DEVIATION]
        offset = [-mean / deviation for mean, deviation in zip(_TORCH_MEAN, _TORCH_DEVIATION, strict=True)]
        return keras.layers.Rescaling(scale, offset=offset, dtype="float32", name="scaling")(photo)
    if scaling == "tf":
        return keras.layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32", name="scaling")(photo)
    # The base scales by itself; it wants floats.
    return keras.layers.Rescaling(1.0, dtype="float32", name="scaling")(photo)


def _weights_file(base: str, weights: str | Path | None) -> Path | None:
    if weights is None:
        return None
    if weights == "imagenet":
        return weight_files.imagenet(BASES[base])
    path = Path(weights)
    if not path.is_file():
        raise WeightsError(f"no weights at {str(path)!r}; give imagenet, none, a weights file or a run's folder.")
    if path.suffix != ".h5":
        raise WeightsError(f"{path} is no weights file that kerastk reads; expected .weights.h5 or Keras's own .h5.")
    return path


def _is_keras_file(base: str, path: Path) -> bool:
    row = BASES[base]
    return weight_files.file_hash(path, "md5" if len(row.hash) == 32 else "sha256") == row.hash


def _load(network: keras.Model, path: Path, base: str) -> None:
    try:
        with warnings.catch_warnings():
            # What a file lacks Keras may leave as it is, with a warning.
            warnings.filterwarnings("error", message="Skipping nested container")
            network.load_weights(path)
    except Exception as error:
        # h5py and Keras raise OSError, KeyError, ValueError and more for a file of another network or a cut one.
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(f"{path} does not hold the weights of {base} without its head: {reason}") from None
