"""A saved model, opened as what it may be: a file from anybody."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
from keras.src.saving.serialization_lib import SafeModeScope

from kerastk.datasets.files import run_file, run_zip
from kerastk.errors import KerastkError, WeightsError
from kerastk.networks.autoencoder import ICNR
from kerastk.networks.characters import CharacterCNN, CharacterLSTM
from kerastk.networks.crf import CRF
from kerastk.networks.independent import Independent
from kerastk.networks.maxout import Maxout

MAX_MODEL = 8 * 2**30
MAX_CONFIG = 16 * 2**20
MEMBERS = ["config.json", "metadata.json", "model.weights.h5"]
# Every class that stands in a model of `networks`. None of them runs code or opens a file of the model's choosing.
CLASSES = {
    "Activation", "Add", "AveragePooling2D", "BatchNormalization", "Bidirectional", "Concatenate", "Conv2D",
    "Conv2DTranspose", "Cropping2D", "CustomScaleLayer", "DTypePolicy", "Dense", "DepthToSpace", "DepthwiseConv2D",
    "Dropout", "Embedding", "Flatten", "Flip", "Functional", "GRU", "GlobalAveragePooling2D", "GlobalMaxPooling2D",
    "GlorotUniform", "GroupNormalization", "HeNormal", "InputLayer", "LSTM", "LayerNormalization", "LayerScale",
    "LeakyReLU", "LecunNormal", "MaxPooling2D", "Multiply", "Normalization", "NotEqual", "Ones", "Orthogonal", "Pad",
    "RandomNormal", "RandomUniform", "ReLU", "Rescaling", "Reshape", "SeparableConv2D", "Sequential", "SimpleRNN",
    "Softmax", "SpatialDropout1D", "Take", "UpSampling2D", "VarianceScaling", "ZeroPadding2D", "Zeros",
    "__keras_tensor__",
}  # fmt: skip
# Our own layers and initialisers, by the name under which Keras knows them.
OURS = {f"kerastk>{each.__name__}": each for each in (CRF, CharacterCNN, CharacterLSTM, ICNR, Independent, Maxout)}


def load(path: Path) -> keras.Model:
    """The model in a `.keras` file of a run folder, if it is made of what kerastk's own networks are made of.

    Raises:
        RunError: the file is a link, larger than any model, or unpacks to more than it is.
        WeightsError: it is missing or damaged, or holds anything else than a model of `networks`.
    """
    try:
        _check(path)
        # What keras.config.enable_unsafe_deserialization() has set outweighs the argument.
        with SafeModeScope(True):
            return keras.saving.load_model(path, safe_mode=True, compile=False)
    except (KerastkError, MemoryError):
        raise
    except Exception as error:
        # Keras raises ValueError, TypeError, zipfile and h5py errors for files that are not whole models.
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(f"cannot load {path}: {reason}") from None


def _check(path: Path) -> None:
    """Refuse what Keras should not see."""
    with open(run_file(path, MAX_MODEL), "rb") as file:
        start = file.read(8)
    if not zipfile.is_zipfile(path):
        raise WeightsError(f"cannot load {path}: it is {_kind(start)}, not the zip file that Keras 3 writes.")
    names = run_zip(path, MAX_MODEL)
    if sorted(names) != MEMBERS:
        other = next((name for name in names if name not in MEMBERS), "not each of them once")
        raise WeightsError(f"cannot load {path}: a model of kerastk holds {', '.join(MEMBERS)}; this holds {other!r}.")
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo("config.json").file_size > MAX_CONFIG:
            raise WeightsError(f"cannot load {path}: its config.json is larger than {MAX_CONFIG >> 20} MiB.")
        config = json.loads(archive.read("config.json"))
    for each in _objects(config):
        name, module, registered = each["class_name"], each.get("module"), each.get("registered_name")
        known = isinstance(name, str) and name in CLASSES and registered in (None, name)
        # Keras imports the module that it is told.
        known = known and str(module or "keras").partition(".")[0] == "keras"
        if not known and not _is_ours(name, module, registered):
            shown = ".".join(str(part) for part in (module, registered or name) if part)[:100]
            raise WeightsError(
                f"cannot load {path}: it holds {shown}, which no network of kerastk has; such a class may run code or "
                "open files."
            )


def _is_ours(name: Any, module: Any, registered: Any) -> bool:
    """Whether this is one of OURS, told to come from where it does."""
    ours = OURS.get(registered) if isinstance(registered, str) else None
    return ours is not None and (name, module) == (ours.__name__, ours.__module__)


def _kind(start: bytes) -> str:
    if start == b"\x89HDF\r\n\x1a\n":
        return "an HDF5 file, which an older Keras may have written"
    if start[:1] == b"\x80" and start[1:2] <= b"\x05":
        return "a pickle, which would run code"
    return "something else or damaged"


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Everything that the configuration asks Keras to make."""
    waiting = [config]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if "class_name" in each:
                yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
