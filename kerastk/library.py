"""For people with a loop of their own: the parts of a run, without the trainer."""

import os
from typing import Any

import keras

from kerastk import shipped, tasks
from kerastk.datasets.array_data import ArrayData, look_at_arrays
from kerastk.datasets.arrays import is_arrays, open_arrays
from kerastk.datasets.check import Look
from kerastk.datasets.check import check as look_at
from kerastk.datasets.photos import PhotoData
from kerastk.datasets.sequence_check import SentenceLook
from kerastk.datasets.sequence_data import SentenceData
from kerastk.datasets.sequence_data import look_at as look_at_sentences
from kerastk.datasets.sequences import is_sentences
from kerastk.datasets.source import open_source
from kerastk.errors import DataError
from kerastk.recipe import Recipe


def build(recipe: Recipe, *, data: Any = None) -> keras.Model:
    """The recipe's network, uncompiled: of photos (batch, size, size, 3) uint8 -> (batch, classes) probabilities.

    The classes are those of the recipe's data (or of `data`, a list or data frame in its stead). What a tagger takes
    and gives: `networks.tagger.tagger`; an autoencoder: `networks.autoencoder.autoencoder`, where `data` may be an
    array.

    Weights that are not pretrained follow from the recipe's seed. Precision and device are yours to choose.

    >>> model = kerastk.build(recipe)
    >>> model.compile("adam", "categorical_crossentropy")
    """
    task = tasks.of(recipe)
    recipe = task.settle(recipe)
    keras.utils.set_random_seed(recipe.seed)
    return task.network(recipe, task.source_of(recipe, data))


def open_data(recipe: Recipe, *, data: Any = None) -> PhotoData | SentenceData | ArrayData:
    """The recipe's data, checked and split: `.train`, `.val` and `.test` iterate over batches.

    >>> for images, labels in kerastk.open_data(recipe).train:
    ...     model.train_on_batch(images, labels)
    """
    task = tasks.of(recipe)
    recipe = task.settle(recipe)
    return task.open_data(recipe, task.source_of(recipe, data))


def check(data: Any, *, label_column: str | None = None) -> Look | SentenceLook:
    """What is wrong with the data: `.findings`, and the readable `.photos`; or `.facts` of a file of tagged sentences.

    Of arrays (a file of them, an array, or a tuple of one and its labels) `.photos` are the rows; `label_column` is the
    column of a CSV file of numbers that holds labels.

    >>> [finding.paths for finding in kerastk.check("photos/").findings if finding.kind == "two-labels"]
    """
    data = shipped.data(data) if isinstance(data, str) else data
    if is_arrays(data):
        return look_at_arrays(open_arrays(data, label_column=label_column))
    if label_column is not None:
        raise DataError(f"{data!r} is no CSV file of numbers; label column {label_column!r} would not be used.")
    if isinstance(data, str | os.PathLike) and is_sentences(data):
        return look_at_sentences({"train": data})
    return look_at(open_source(data))
