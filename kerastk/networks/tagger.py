"""A tagger of sentences: word, character and casing features, recurrent layers both ways, a softmax or a CRF.

Names: `words`, `casing`, `spelling`, `spelling_characters` (inputs), `word_vectors`, `character_features`,
`recurrent_1` and so on, `head` (emissions), `probabilities` (the output layer, a `CRF` or an `Independent`).
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from kerastk.errors import RecipeError
from kerastk.networks.characters import CharacterCNN, CharacterLSTM
from kerastk.networks.crf import CRF
from kerastk.networks.independent import Independent

CELLS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}
OUTPUTS = ("softmax", "crf")


@dataclass(frozen=True, kw_only=True)
class Characters:
    """Character features: `count` characters with the padding, each a vector of `size`.

    `network` "cnn" has `values` filters of each of `widths`; "lstm" has `values` units a direction and no `widths`.
    """

    network: str
    count: int
    size: int
    values: int
    widths: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Legal:
    """What may follow what: boolean `transitions` (from, to), `starts` (tags,) and `ends` (tags,)."""

    transitions: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def tagger(
    *,
    words: int,
    tags: int,
    word_size: int,
    vectors: np.ndarray | None,
    train_vectors: bool,
    characters: Characters | None,
    casings: int,
    casing_size: int,
    cell: str,
    layers: int,
    width: int,
    dropout: float,
    output: str,
    legal: Legal | None,
) -> keras.Model:
    """An uncompiled tagger: a dict of int32 arrays in, a dict of `tags` and `probabilities` out.

    In: `words` (batch, time), 0 where padded, on the right alone, and no sentence of padding alone; `casing` (batch,
    time) if `casings` is not 0; if there are `characters`, `spelling_characters` (spellings, length), those of each
    different word of the batch, and `spelling` (batch, time): which of these stands where. Out: `tags` (batch, time)
    int32, -1 where padded, and `probabilities` (batch, time, tags) float32, 0 where padded. More padding changes
    nothing.

    `vectors` (words, word_size) float32 are what the word vectors start from (else they are random), and stay if not
    `train_vectors`. `width` is of one direction. `dropout` drops whole features of a sentence before, between and
    behind the recurrent layers (locked dropout: Gal and Ghahramani 2016, arXiv:1512.05287). `legal` belongs to the
    output "crf". Huang et al. 2015, arXiv:1508.01991; Ma and Hovy 2016, arXiv:1603.01354.

    Raises:
        RecipeError: no such cell, output or character network, or an option that the network would not use.
    """
    _check(cell=cell, output=output, legal=legal, characters=characters, vectors=vectors, shape=(words, word_size))
    inputs = {"words": keras.Input((None,), dtype="int32", name="words")}
    mask = ops.not_equal(inputs["words"], 0)
    embedding = keras.layers.Embedding(words, word_size, trainable=train_vectors, name="word_vectors")
    parts = [embedding(inputs["words"])]
    if vectors is not None:
        embedding.set_weights([vectors])
    if characters is not None:
        inputs["spelling"] = keras.Input((None,), dtype="int32", name="spelling")
        # Behind "spelling" by name: Keras weighs the loss of a batch by the rows of the first input.
        spelled = keras.Input((None,), dtype="int32", name="spelling_characters")
        inputs["spelling_characters"] = spelled
        parts.append(ops.take(_features(characters)(spelled), inputs["spelling"], axis=0))
    if casings:
        inputs["casing"] = keras.Input((None,), dtype="int32", name="casing")
        parts.append(keras.layers.Embedding(casings, casing_size, name="casing_vectors")(inputs["casing"]))
    x = keras.layers.Concatenate(name="features")(parts) if len(parts) > 1 else parts[0]
    x = keras.layers.SpatialDropout1D(dropout, name="dropout_0")(x)
    for number in range(1, layers + 1):
        one = CELLS[cell](width, return_sequences=True)
        x = keras.layers.Bidirectional(one, name=f"recurrent_{number}")(x, mask=mask)
        x = keras.layers.SpatialDropout1D(dropout, name=f"dropout_{number}")(x)
    emissions = keras.layers.Dense(tags, name="head", dtype="float32")(x)
    path, probabilities = _output(output, tags, legal)(emissions, mask=mask)
    return keras.Model(inputs, {"tags": path, "probabilities": probabilities}, name="tagger")


def scores_model(model: keras.Model) -> keras.Model:
    """The same network up to its emissions (batch, time, tags) float32: what is trained, with `objective(model)`.

    The weights of the output layer are among its weights, though they do not change what it gives.
    """
    return keras.Model(model.input, _Beside(model.get_layer("probabilities"))(model.get_layer("head").output))


def objective(model: keras.Model) -> "TokenLikelihood":
    """The loss of `scores_model(model)`."""
    return TokenLikelihood(model.get_layer("probabilities"))


def kernel_notes(model: keras.Model, *, device: str, xla: bool) -> list[str]:
    """Whether the recurrent layers run in the fused (cuDNN) kernel, and whether XLA compiles a step; why not, if not.

    `device` is `cpu` or `gpu:N`, `xla` what `jit_compile` says of the compiled model.
    """
    backend = keras.backend.backend()
    cell = model.get_layer("recurrent_1").forward_layer
    reason = _unfused(cell, backend, device)
    compiled = "XLA on: a step is compiled once for each shape of a batch"
    if not xla or backend == "torch":
        compiled = "XLA off: "
        if backend == "torch":
            compiled += "the PyTorch backend has none"
        elif reason is None:
            compiled += "it cannot compile the fused kernel"
        elif device == "cpu":
            compiled += "on a CPU each shape of a batch takes longer to compile than is won"
        else:
            compiled += "Keras does without it where runs are to be equal bit for bit"
    return ["fused kernel on" if reason is None else f"fused kernel off: {reason}", compiled]


def _unfused(cell: keras.layers.Layer, backend: str, device: str) -> str | None:
    """Why a layer does not run in the fused kernel of a GPU, in words; None where it does."""
    if not isinstance(cell, keras.layers.LSTM | keras.layers.GRU):
        return "there is none for the cell rnn"
    # What Keras asks for: tanh and sigmoid, biases, no unrolling, no recurrent dropout.
    usual = cell.activation is keras.activations.tanh and cell.recurrent_activation is keras.activations.sigmoid
    if (
        not usual
        or not cell.use_bias
        or cell.unroll
        or cell.recurrent_dropout
        or not getattr(cell, "reset_after", True)
    ):
        return "the cell is not the usual one with tanh, sigmoid and biases"
    if device == "cpu":
        return "only a GPU has it"
    # Keras 3.15, backend/jax/rnn.py and backend/torch/rnn.py: any mask falls back to a loop.
    return None if backend == "tensorflow" else f"on {backend} Keras does not use it for padded sentences"


class TokenLikelihood(keras.losses.Loss):
    """The negative log-likelihood of a batch's tags under an output layer, over the number of its words.

    `y_true` (batch, time) are tags, -1 where padded; `y_pred` (batch, time, tags) emissions. It refers to the layer's
    weights, and is compiled into a model that has them.
    """

    def __init__(self, layer: CRF | Independent, *, name: str = "token_likelihood"):
        super().__init__(name=name)
        self.layer = layer

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """A number for each sentence, (batch,), whose mean is the loss."""
        mask = ops.greater_equal(y_true, 0)
        losses = -self.layer.log_likelihood(y_pred, y_true, mask)
        sentences, words = (ops.sum(ops.cast(each, losses.dtype)) for each in (mask[:, 0], mask))
        return losses * (sentences / words)


class _Beside(keras.layers.Layer):
    """Gives what it gets, and has the weights of a layer that the loss needs."""

    def __init__(self, layer: keras.layers.Layer):
        super().__init__(dtype="float32")
        self.layer = layer
        self.supports_masking = True

    def call(self, emissions: keras.KerasTensor) -> keras.KerasTensor:
        return ops.copy(emissions)

    def compute_mask(self, inputs: keras.KerasTensor, mask: keras.KerasTensor | None = None) -> None:
        """None goes on: Keras would weigh the loss of each sentence by it."""


def _features(characters: Characters) -> keras.layers.Layer:
    named: dict[str, Any] = {"size": characters.size, "name": "character_features"}
    if characters.network == "lstm":
        return CharacterLSTM(characters.count, units=characters.values, **named)
    return CharacterCNN(characters.count, filters=characters.values, widths=characters.widths, **named)


def _output(output: str, tags: int, legal: Legal | None) -> keras.layers.Layer:
    if output == "softmax":
        return Independent(name="probabilities")
    ruled = {} if legal is None else {"transitions": legal.transitions, "starts": legal.starts, "ends": legal.ends}
    return CRF(tags, **ruled, name="probabilities")


def _check(
    *,
    cell: str,
    output: str,
    legal: Legal | None,
    characters: Characters | None,
    vectors: np.ndarray | None,
    shape: tuple[int, int],
) -> None:
    for name, value, known in (("cell", cell, CELLS), ("output", output, OUTPUTS)):
        if value not in known:
            raise RecipeError(f"{name} must be one of {', '.join(known)}; got {value!r}.")
    if legal is not None and output != "crf":
        raise RecipeError(f"legal transitions belong to the output crf; {output} would not use them.")
    if characters is not None and characters.network not in ("cnn", "lstm"):
        raise RecipeError(f"the character network must be cnn or lstm; got {characters.network!r}.")
    if vectors is not None and vectors.shape != shape:
        raise RecipeError(f"vectors must be (words, word_size) = {shape}; got {vectors.shape}.")
