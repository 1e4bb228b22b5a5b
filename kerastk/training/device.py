"""Where a run computes, and in which arithmetic."""

import contextlib
import re

import keras

from kerastk.errors import RecipeError

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
# What stays in float32 whatever the precision: the logits, the probabilities and the scaling of pixel values.
_FLOAT32_NAMES = ("head", "probabilities", "code", "log_variance", "reconstruction", "image")
_FLOAT32_KINDS = (keras.layers.Rescaling, keras.layers.Normalization)


def choose_device(wanted: str) -> str:
    """The device for `auto`, `cpu`, `gpu` or `gpu:N` as `cpu` or `gpu:N`; sets up its memory.

    Raises:
        RecipeError: there is no such GPU.
    """
    try:
        gpus = [name.rpartition(":")[2] for name in keras.distribution.list_devices("gpu")]
    except RuntimeError:
        # JAX raises where TensorFlow gives an empty list.
        gpus = []
    if wanted == "cpu" or (wanted == "auto" and not gpus):
        return "cpu"
    number = wanted.partition(":")[2] or "0"
    if number not in gpus:
        have = f"it sees {len(gpus)} GPU(s)" if gpus else "it sees no GPU"
        raise RecipeError(f"device {wanted} is not there: the {keras.backend.backend()} backend says {have}. Use cpu.")
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        for gpu in tensorflow.config.list_physical_devices("GPU"):
            # Once the GPU is in use its memory mode can no longer be changed; that is fine.
            with contextlib.suppress(RuntimeError):
                tensorflow.config.experimental.set_memory_growth(gpu, True)
    return f"gpu:{number}"


def out_of_memory(error: Exception) -> bool:
    """Whether a backend says with this error that the device's memory is full."""
    text = f"{type(error).__name__}: {error}"
    # TensorFlow says the same of a full disk.
    full = any(sign in text for sign in ("ResourceExhausted", "RESOURCE_EXHAUSTED", "OutOfMemoryError"))
    return full and "No space left" not in text


def batch_that_fits(batch: int, values: int, weights: int, trained: int, device: str) -> int:
    """About how many photos a step fit into the memory of a device that was too small for `batch`.

    A step keeps `values` numbers a photo and about as many gradients; beside them there are all `weights`, and of those
    that are `trained` the gradient and two moments. What was in use when it failed is taken for what there is.
    """
    peak = None
    if keras.backend.backend() == "tensorflow" and device.startswith("gpu"):
        import tensorflow

        with contextlib.suppress(ValueError):
            peak = tensorflow.config.experimental.get_memory_info(device.upper())["peak"]
    room = batch // 2 if peak is None else int((peak - 4 * (weights + 3 * trained)) / (8 * values))
    room = min(room, batch - 1)
    return max(1, room - room % 8 if room > 8 else room)


def choose_precision(wanted: str, device: str) -> tuple[str, str]:
    """(`float32`, `bfloat16` or `float16`; the reason in words) for the wish and the device.

    Raises:
        RecipeError: float16 on a CPU, which is several times slower than float32 there.
    """
    on_gpu = device.startswith("gpu")
    if wanted == "float16" and not on_gpu:
        raise RecipeError("precision float16 is 4 times slower than float32 on a CPU; use float32 or bfloat16.")
    if wanted != "auto":
        return wanted, "as asked"
    if not on_gpu:
        return "float32", "the fastest on most CPUs"
    capability = _compute_capability(int(device.partition(":")[2]))
    shown = ".".join(map(str, capability)) if capability else "unknown"
    if capability >= (8, 0):
        return "bfloat16", f"the GPU has it (compute capability {shown})"
    if capability >= (7, 0):
        return "float16", f"the GPU has float16 units but no bfloat16 (compute capability {shown})"
    return "float32", f"the GPU has no units for less (compute capability {shown})"


def _compute_capability(number: int) -> tuple[int, ...]:
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow

        gpu = tensorflow.config.list_physical_devices("GPU")[number]
        return tuple(tensorflow.config.experimental.get_device_details(gpu).get("compute_capability", ()))
    if backend == "jax":
        import jax

        named = str(getattr(jax.devices("gpu")[number], "compute_capability", ""))
        # Not every accelerator names one.
        return tuple(int(part) for part in named.split(".")) if re.fullmatch(r"\d+\.\d+", named) else ()
    import torch

    return torch.cuda.get_device_capability(number)


def set_precision(model: keras.Model, precision: str) -> None:
    """Let the model's layers compute in `precision`; their weights, the logits and the output stay float32.

    To be called before the model is compiled. A model is saved after `set_precision(model, "float32")`: a layer's
    policy is saved with it, and float16 is slow on a CPU.
    """
    for layer in model.layers:
        if layer.name in _FLOAT32_NAMES or isinstance(layer, _FLOAT32_KINDS):
            continue
        # A policy does not reach what is inside by itself: ConvNeXt's stem, both ways of a recurrent layer, its cell.
        for each in layer._flatten_layers():
            if each.name not in _FLOAT32_NAMES and not isinstance(each, _FLOAT32_KINDS):
                each.dtype_policy = POLICIES[precision]
