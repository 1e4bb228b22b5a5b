"""Where in a photo a classifier saw what it answered: Grad-CAM without gradients.

Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) weighs the last activations by the mean gradient of a class's logit.
Where they are averaged over all places and go into a dense head, that gradient is the class's column of the head: class
activation mapping (Zhou et al. 2016, arXiv:1512.04150). All networks of `networks.classifier` are so, whatever was
trained of them; in ConvNeXt alone a LayerNormalization comes between, whose derivative is known.
"""

import keras
import numpy as np

from kerastk.networks.classifier import features, has_head

# What an eager pass keeps of so many photos is little beside a training step.
_BATCH = 16


def explainable(model: keras.Model) -> bool:
    """Whether the model is one that `heat_maps` can explain."""
    return has_head(model) and _pooling(model) is not None


def heat_maps(model: keras.Model, photos: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """What speaks for a class in each photo, (photos, rows, columns) float32, from 0 to 1 (the most); on all backends.

    `photos` is (photos, size, size, 3) uint8, `classes` (photos,) the class number to explain in each. Rows and columns
    are those of the network's last activations, 7 x 7 in most. A map is all 0 where nothing speaks for the class.
    """
    pooling, scale = _pooling(model)
    part = keras.Model(model.input, [pooling.input, pooling.output])
    kernel = keras.ops.convert_to_numpy(model.get_layer("head").kernel)
    found = []
    for start in range(0, len(photos), _BATCH):
        outputs = part(photos[start : start + _BATCH], training=False)
        maps, pooled = (keras.ops.convert_to_numpy(each).astype(np.float32) for each in outputs)
        gradient = kernel.T[classes[start : start + _BATCH]]
        if scale is not None:
            gradient = _through_normalization(gradient, pooled, scale)
        heat = np.maximum(np.einsum("nijc,nc->nij", maps, gradient), 0)
        most = heat.max(axis=(1, 2), keepdims=True)
        found.append(heat / np.where(most > 0, most, 1))
    return np.concatenate(found)


def _pooling(model: keras.Model) -> tuple[keras.Layer, keras.layers.LayerNormalization | None] | None:
    """The layer that averages the last activations, and the normalization that follows it, if any."""
    end = features(model)
    for layer in reversed(keras.Model(model.input, end).layers):
        if isinstance(layer, keras.layers.GlobalAveragePooling2D):
            return (layer, None) if layer.output is end else None
        if isinstance(layer, keras.layers.LayerNormalization) and layer.output is end:
            before = layer.input._keras_history.operation
            return (before, layer) if isinstance(before, keras.layers.GlobalAveragePooling2D) else None
    return None


def _through_normalization(
    gradient: np.ndarray, values: np.ndarray, layer: keras.layers.LayerNormalization
) -> np.ndarray:
    """The gradient before a LayerNormalization of (photos, features) values, from that behind it."""
    gradient = gradient * keras.ops.convert_to_numpy(layer.gamma)
    deviation = np.sqrt(values.var(axis=1, keepdims=True) + layer.epsilon)
    normal = (values - values.mean(axis=1, keepdims=True)) / deviation
    straight = gradient - gradient.mean(axis=1, keepdims=True)
    return (straight - normal * (gradient * normal).mean(axis=1, keepdims=True)) / deviation
