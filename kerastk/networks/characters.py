"""Words as what they are spelled with: characters (words, length) int32, 0 where padded, as vectors."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kerastk")
class CharacterCNN(keras.layers.Layer):
    """Convolutions over characters, the largest of each filter: (words, length) -> (words, all filters).

    Ma and Hovy 2016, arXiv:1603.01354; `filters` for each of `widths` (odd numbers) as in Kim et al. 2016,
    arXiv:1508.06615. The word stands between zeros, so that its beginning and end can be told. Behind it nothing
    counts: more padding changes nothing, and a word of padding alone is zeros.
    """

    def __init__(self, characters: int, *, size: int, filters: int, widths: tuple[int, ...], **layer: Any):
        super().__init__(**layer)
        if not widths or not all(isinstance(width, int) and width > 0 and width % 2 for width in widths):
            raise ValueError(f"widths must be odd whole numbers; got {widths!r}.")
        self.characters, self.size, self.filters, self.widths = characters, size, filters, tuple(widths)
        self.embedding = keras.layers.Embedding(characters, size, name="embedding", dtype=self.dtype_policy)
        self.convolutions = [
            keras.layers.Conv1D(
                filters, width, padding="same", activation="relu", name=f"width_{width}", dtype=self.dtype_policy
            )
            for width in self.widths
        ]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the embedding and the kernels."""
        self.embedding.build(input_shape)
        for convolution in self.convolutions:
            convolution.build((*input_shape, self.size))

    def call(self, characters: keras.KerasTensor) -> keras.KerasTensor:
        """See the class."""
        vectors = self.embedding(characters)
        real = ops.cast(ops.not_equal(characters, 0), vectors.dtype)[..., None]
        spelled = vectors * real
        # Behind relu nothing is below 0, so zeros where padded leave the maximum as it is.
        return ops.concatenate([ops.max(each(spelled) * real, axis=1) for each in self.convolutions], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(words, filters of all widths)."""
        return (input_shape[0], self.filters * len(self.widths))

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        own = {"characters": self.characters, "size": self.size, "filters": self.filters, "widths": list(self.widths)}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="kerastk")
class CharacterLSTM(keras.layers.Layer):
    """The last states of an LSTM each way over a word: (words, length) -> (words, 2 * units).

    Lample et al. 2016, arXiv:1603.01360. The fused kernel of a GPU refuses a word of padding alone, so of such a word
    one character counts; what it gives is of no use, since the word is masked behind.
    """

    def __init__(self, characters: int, *, size: int, units: int, **layer: Any):
        super().__init__(**layer)
        self.characters, self.size, self.units = characters, size, units
        self.embedding = keras.layers.Embedding(characters, size, name="embedding", dtype=self.dtype_policy)
        one = keras.layers.LSTM(units, dtype=self.dtype_policy)
        self.recurrent = keras.layers.Bidirectional(one, name="recurrent", dtype=self.dtype_policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the embedding and the cells' weights."""
        self.embedding.build(input_shape)
        self.recurrent.build((None, input_shape[-1], self.size))

    def call(self, characters: keras.KerasTensor) -> keras.KerasTensor:
        """See the class."""
        real = ops.logical_or(ops.not_equal(characters, 0), ops.arange(ops.shape(characters)[1]) == 0)
        return self.recurrent(self.embedding(characters), mask=real)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(words, states of both directions)."""
        return (input_shape[0], 2 * self.units)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {**super().get_config(), "characters": self.characters, "size": self.size, "units": self.units}
