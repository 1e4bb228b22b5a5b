"""The recipe of a tagger."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from kerastk.errors import RecipeError
from kerastk.notation import OPTIMIZERS
from kerastk.recipe.base import Recipe, given_or, option

# What None stands for where it is needed before the rest can be resolved.
TAG_SPLIT = "80/10/10"
TAG_EPOCHS = 12
# Of few sentences more epochs are needed: as many as make so many steps, but no more than MOST_EPOCHS.
ENOUGH_STEPS, MOST_EPOCHS = 1000, 60


@dataclass(frozen=True, kw_only=True)
class Tag(Recipe):
    """Train a tagger of words on sentences: names, parts of speech, slots.

    >>> Tag(data="train.conll", test="test.conll").cell
    'lstm'
    """

    task: ClassVar[str] = "tag"

    data: str | None = option(
        None, "What to learn from: a file of tagged sentences in columns (CoNLL), CoNLL-U, or JSON lines with text and "
        "spans; .gz is read too. kerastk:names is a small one that ships.", group="data", common=True,
    )  # fmt: skip
    dev: str | None = option(
        None, "A file of sentences by which the best model is chosen.", group="data", auto="a part of DATA", common=True
    )
    test: str | None = option(None, "A file of sentences to test on.", group="data", auto="a part of DATA", common=True)
    split: str | None = option(
        None, "Percent of the sentences for training, validation and, if wanted, test; what has a file of its own is "
        "not cut from DATA.", group="data", auto=TAG_SPLIT,
    )  # fmt: skip
    columns: str | None = option(
        None, "What the columns of the files are, like word,-,tag: a minus is left out.", group="data", auto="guessed"
    )
    tag_column: str | None = option(
        None, "The column of the tags, by its name: of CoNLL-U upos, xpos, deprel and so on.", group="data",
        auto="tag; upos of CoNLL-U",
    )  # fmt: skip
    scheme: str | None = option(
        None, "How tags spell spans while it learns; answers come in the spelling of the files.", group="data",
        choices=("iob1", "iob2", "iobes"), auto="iobes; none for plain tags",
    )  # fmt: skip
    strict: bool = option(False, "Refuse the data at any finding of `kerastk check`.", group="data")
    max_length: int = option(
        120, "Words of a sentence that is learned in one piece; a longer one is cut.", group="data", unit="words",
        low=8, high=10_000,
    )  # fmt: skip
    max_words: int = option(
        50_000, "Most words of the vocabulary, the most frequent ones.", group="network", low=1, high=10_000_000
    )
    min_count: int = option(
        1, "How often a word must be in the training sentences to have a vector of its own.", group="network", low=1,
        high=10_000,
    )  # fmt: skip
    lower: bool = option(True, "Look words up in small letters (characters and casing tell of capitals).",
                         group="network")  # fmt: skip
    fold_digits: bool = option(True, "Look all digits up as 0.", group="network")
    vectors: str | None = option(
        None, "A file of word vectors to start from, as text (GloVe, word2vec, fastText).", group="network",
        auto="random vectors", common=True,
    )  # fmt: skip
    train_vectors: bool | None = option(None, "Train the vectors of --vectors, too.", group="network", auto="on")
    word_size: int | None = option(
        None, "Numbers a word vector has.", group="network", auto="100, or that of --vectors", low=1, high=4096
    )
    characters: str = option(
        "cnn", "What reads the spelling of a word: convolutions, an LSTM each way, or nothing.", group="network",
        choices=("cnn", "lstm", "none"),
    )  # fmt: skip
    casing: bool = option(True, "Tell the network how a word is written: small, capital, with digits.", group="network")
    cell: str = option("lstm", "The recurrent layers' kind.", group="network", choices=("lstm", "gru", "rnn"))
    layers: int = option(1, "Bidirectional layers.", group="network", low=1, high=16)
    width: int = option(150, "Units a layer and direction.", group="network", low=1, high=8192, common=True)
    output: str = option(
        "crf", "How tags are chosen: all of a sentence together by a conditional random field, which allows no "
        "transition that the scheme does not, or each by itself.", group="network", choices=("crf", "softmax"),
        common=True,
    )  # fmt: skip
    dropout: float = option(0.4, "Share of the features dropped from a sentence, before and behind each layer.",
                            group="network", low=0, below=1)  # fmt: skip
    word_dropout: float = option(
        0.2, "Share of the words that are shown as unknown in training, so that these teach what is unknown.",
        group="network", low=0, below=1,
    )  # fmt: skip
    epochs: int | None = option(
        None, "Passes over the training sentences.", group="training",
        auto="12; of few sentences as many as make 1,000 steps, at most 60", unit="epochs", low=1, high=100_000,
        common=True,
    )  # fmt: skip
    batch_size: int = option(500, "Words a step, about, with the padding.", group="training", low=1, high=1_000_000,
                             common=True)  # fmt: skip
    learning_rate: float | str | None = option(
        None, "Peak learning rate; auto finds one (`kerastk lr-find`).", group="training",
        auto="0.003, in proportion to the optimizer's usual one", low=1e-9, high=10, common=True,
    )  # fmt: skip
    warmup_epochs: float | None = option(
        None, "Linear rise of the learning rate at the start.", group="training",
        auto="0.5, or a tenth of a shorter training", unit="epochs", low=0, high=1000,
    )  # fmt: skip
    clipnorm: float | None = option(
        None, "Largest global norm of the gradients; 0 leaves them as they are.", group="training", auto="5", low=0,
        high=1e6,
    )  # fmt: skip
    patience: int | None = option(
        None, "Stop after so many epochs without a better validation figure (F1 of spans, accuracy of plain tags).",
        group="training", auto="10", unit="epochs", low=1, high=100_000,
    )  # fmt: skip
    weight_decay: float | None = option(
        None, "Decoupled weight decay of all optimizers but adam; it spares biases and normalisation.",
        group="training", auto="0", low=0, high=10,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vectors is None:
            self.refuse(("train_vectors",), "without vectors (random ones are always trained)")
        else:
            self.refuse(("word_size",), "with vectors, which have their own")
        if self.dev is not None and self.test is not None:
            self.refuse(("split", "split_seed"), "where dev and test are files of their own")
        if self.warmup_epochs is not None and self.epochs is not None and self.warmup_epochs >= self.epochs:
            raise RecipeError(f"warmup_epochs must be below epochs, {self.epochs}; got {self.warmup_epochs:g}.")

    def resolve(
        self, *, steps: int, scheme: str | None, word_size: int, precision: str, device: str, split: str | None,
        split_seed: int | None, name: str,
    ) -> "Tag":  # fmt: skip
        """A copy with every automatic value filled in from what the run found.

        `steps` are those of an epoch; `scheme` is None for plain tags.
        """
        scale, numbers = OPTIMIZERS[self.optimizer or "adamw"]
        epochs = given_or(self.epochs, max(TAG_EPOCHS, min(MOST_EPOCHS, math.ceil(ENOUGH_STEPS / steps))))
        values: dict[str, Any] = {
            "scheme": scheme,
            "word_size": word_size if self.vectors is None else None,
            "train_vectors": None if self.vectors is None else given_or(self.train_vectors, True),
            "precision": precision,
            "device": device,
            "split": split,
            "split_seed": split_seed,
            "name": name,
            "epochs": epochs,
            "learning_rate": given_or(self.learning_rate, scale * 3e-3),
            "warmup_epochs": given_or(self.warmup_epochs, min(0.5, epochs / 10)),
            **self.optimisation(patience=10),
            "clipnorm": given_or(self.clipnorm, 5.0),
        }
        if "weight_decay" in numbers:
            values["weight_decay"] = given_or(self.weight_decay, 0.0)
        return dataclasses.replace(self, **values)
