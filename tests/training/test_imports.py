"""What `kerastk.training` gives to a `fit` without a recipe."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

from kerastk import training
from kerastk.errors import Diverged, RecipeError
from kerastk.training import (
    Events,
    GradientNorms,
    Guard,
    Plateau,
    Writer,
    class_weights,
    loss,
    optimizer,
    range_test,
    schedule,
    watch_gradients,
)
from tests.test_imports import loaded_by

GUIDE = Path(__file__).parents[2] / "docs" / "training.md"
LABELS = np.eye(3, dtype=np.float32)[np.arange(48) % 3]
VALUES = np.random.default_rng(0).normal(size=(48, 4)).astype(np.float32) + 2 * np.pad(LABELS, ((0, 0), (0, 1)))


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, activation="relu", name="below"), keras.layers.Dense(3, name="top")]
    )


def test_the_public_names_are_there_and_loaded_late():
    assert set(dir(training)) == set(training.__all__)
    for name in training.__all__:
        found = getattr(training, name)
        assert isinstance(found, dict) or found.__module__.startswith("kerastk.training.")
    assert loaded_by("import kerastk.training") == "[]"
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        training.fit  # noqa: B018


def test_each_public_name_is_in_the_guide():
    text = GUIDE.read_text(encoding="utf-8")
    assert [name for name in training.__all__ if f"`{name}`" not in text] == []


def test_the_program_in_the_guide_learns_digits(monkeypatch):
    code = re.search(r"## In Keras code.*?```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)[1]
    keras.utils.set_random_seed(0)
    found = {"__name__": "guide"}
    exec(code, found)
    accuracy = found["history"].history["accuracy"]
    assert accuracy[-1] > 0.8 > accuracy[0]
    # Another epoch shows other photos, the same one the same.
    batches = found["Digits"]()
    first, again = batches[0][0], batches[0][0]
    batches.on_epoch_end()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, batches[0][0])
    # The rate has come down again.
    assert float(found["network"].optimizer.learning_rate) < 0.002


def test_a_guard_ends_a_fit_whose_loss_is_no_number(network):
    network.compile(optimizer("sgd", 0.1), loss("cross_entropy"))
    labels = LABELS.copy()
    labels[20] = np.nan
    with pytest.raises(
        Diverged, match=r"^the loss is no longer a number at epoch 1, batch 3, learning rate up to 0\.1"
    ):
        network.fit(VALUES, labels, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[Guard()])


def test_a_plateau_watches_the_figure_that_it_is_told(network):
    network.compile(optimizer("adam", 1e-9), loss("cross_entropy"))
    plateau = Plateau(0.5, 1, monitor="val_loss", warmup_steps=2)
    network.fit(
        VALUES, LABELS, validation_data=(VALUES, LABELS), epochs=4, batch_size=16, verbose=0, callbacks=[plateau]
    )
    assert float(network.optimizer.learning_rate) < 1e-9
    with pytest.raises(RecipeError, match="watches val_cross_entropy; this fit gives loss"):
        network.fit(VALUES, LABELS, verbose=0, callbacks=[Plateau(0.5, 1)])


def test_a_range_test_of_a_plain_network(network):
    def batches(steps):
        while True:
            yield VALUES, LABELS

    found = range_test(network, batches, lambda curve: keras.optimizers.SGD(curve(1.0)), loss("cross_entropy"))
    assert 1e-3 < found.suggestion < 10


def test_tensorboard_shows_what_the_loss_is_scaled_by(network, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    scaled = keras.optimizers.LossScaleOptimizer(optimizer("sgd", 0.1), initial_scale=8.0, dynamic_growth_steps=2)
    network.compile(scaled, loss("cross_entropy"))
    writer = Writer(tmp_path)
    network.fit(VALUES, LABELS, batch_size=16, epochs=1, verbose=0, callbacks=[Events(writer, 3)])
    writer.close()
    found = EventAccumulator(str(tmp_path / "train")).Reload()
    assert [float(make_ndarray(event.tensor_proto)) for event in found.Tensors("loss_scale")] == [8, 16, 16]


def test_tensorboard_shows_the_gradients_of_a_plain_network(network, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    weights = class_weights([16, 16, 16])
    made = optimizer("sgd", schedule("constant", peak=0.1, total_steps=6))
    watch_gradients(made, network, network.trainable_variables)
    network.compile(made, loss("cross_entropy", class_weights=weights))
    writer = Writer(tmp_path)
    events = Events(writer, 3)
    network.fit(
        VALUES, LABELS, batch_size=16, epochs=2, verbose=0, callbacks=[events, GradientNorms(events, pytest.fail)]
    )
    writer.close()
    found = EventAccumulator(str(tmp_path / "train")).Reload()
    assert [event.step for event in found.Tensors("gradient_norm/all")] == [1, 2, 3, 4, 5, 6]
    assert {"learning_rate", "running_loss"} <= set(found.Tags()["tensors"])
