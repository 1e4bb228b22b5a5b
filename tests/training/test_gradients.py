import keras
import numpy as np
import pytest
import tensorflow

from kerastk.training.device import set_precision
from kerastk.training.gradients import EXPLODING, VANISHING, GradientNorms, Noted, judged, watch_gradients
from kerastk.training.phases import Phase, optimizer, prepare
from kerastk.training.tensorboard import Events, Writer

PHOTOS = np.random.default_rng(7).integers(0, 256, (8, 32, 32, 3), "uint8")
LABELS = np.eye(3, dtype="float32")[np.arange(8) % 3]
LOSS = keras.losses.CategoricalCrossentropy(from_logits=True)


def network():
    """Four stages without normalisation, the same each time."""
    keras.utils.set_random_seed(5)
    photo = keras.Input((32, 32, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(photo)
    for number in range(1, 5):
        x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name=f"conv_{number}")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(3, name="head")(keras.layers.Dropout(0.0, name="head_dropout")(x))
    return keras.Model(photo, keras.layers.Softmax()(x))


PARTS = ["stage_1", "stage_2", "stage_3", "stage_4", "head"]


def by_hand(model, parts=PARTS):
    """The norms by a tape of one's own."""
    logits = keras.Model(model.input, model.get_layer("head").output)
    layers = [model.get_layer(name.replace("stage", "conv")) for name in parts]
    with tensorflow.GradientTape() as tape:
        loss = LOSS(LABELS, logits(PHOTOS, training=True))
    found = tape.gradient(loss, [[weight.value for weight in layer.trainable_weights] for layer in layers])
    return [np.sqrt(sum(float(tensorflow.reduce_sum(each**2)) for each in part)) for part in found]


def watched(model, unfreeze="all", *, precision="float32", layer_decay=None, clipnorm=1e-3, rate=1e-3, **options):
    """The network, compiled, with an optimizer that notes."""
    set_precision(model, precision)
    phase = Phase(name="x", unfreeze=unfreeze, epochs=2, learning_rate=rate, warmup_epochs=0.0)
    fitted = prepare(model, phase)
    made = optimizer(
        phase, 2, weight_decay=0.0, clipnorm=clipnorm, precision=precision, layer_decay=layer_decay, model=model
    )
    watch_gradients(made, model, fitted.trainable_variables)
    made.build(fitted.trainable_variables)
    fitted.compile(made, loss=LOSS, **options)
    return fitted


def noted(fitted):
    return getattr(fitted.optimizer, "inner_optimizer", fitted.optimizer).noted


@pytest.mark.parametrize("layer_decay", [None, 0.5], ids=["one optimizer", "one a block"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_norms_are_those_of_the_step_before_clipping(precision, layer_decay):
    wanted = by_hand(network())
    fitted = watched(network(), precision=precision, layer_decay=layer_decay)
    fitted.fit(PHOTOS, LABELS, batch_size=8, verbose=0)
    found = noted(fitted)
    assert found.names == PARTS
    assert found.reach == ["conv_1", "conv_2", "conv_3", "conv_4", "head"]
    assert list(found.weights) == [3 * 3 * 3 * 4 + 4, *[3 * 3 * 4 * 4 + 4] * 3, 4 * 3 + 3]
    # A checkpoint keeps them.
    assert sum(variable is found.norms for variable in fitted.optimizer.variables) == 1
    # float16 has 11 bits.
    np.testing.assert_allclose(np.array(found.norms), wanted, rtol=1e-4 if precision == "float32" else 2e-2)


def test_only_what_is_trained_has_a_norm():
    wanted = by_hand(network(), ["stage_4", "head"])
    fitted = watched(network(), unfreeze=1)
    fitted.fit(PHOTOS, LABELS, batch_size=8, verbose=0)
    assert noted(fitted).names == ["stage_4", "head"]
    np.testing.assert_allclose(np.array(noted(fitted).norms), wanted, rtol=1e-4)


def test_a_watched_optimizer_makes_the_same_steps():
    trained = []
    for look in (watch_gradients, lambda *given: None):
        model = network()
        phase = Phase(name="x", unfreeze="all", epochs=2, learning_rate=1e-3, warmup_epochs=0.0)
        fitted = prepare(model, phase)
        made = optimizer(phase, 2, weight_decay=0.1, clipnorm=0.01, precision="float32")
        look(made, model, fitted.trainable_variables)
        fitted.compile(made, loss=LOSS, run_eagerly=True)
        fitted.fit(PHOTOS, LABELS, batch_size=4, epochs=2, shuffle=False, verbose=0)
        trained.append([np.array(weight) for weight in model.weights])
    assert all(np.array_equal(one, other) for one, other in zip(*trained, strict=True))


def test_a_norm_that_is_no_number_is_a_huge_one():
    fitted = watched(network(), run_eagerly=True)
    gradients = [keras.ops.zeros_like(weight) for weight in fitted.trainable_variables]
    gradients[0] = gradients[0] + np.inf
    gradients[2] = gradients[2] + np.nan
    fitted.optimizer.apply(gradients, fitted.trainable_variables)
    found = np.array(noted(fitted).norms)
    assert np.isfinite(found).all()
    assert (found > 1e38).tolist() == [True, True, False, False, False]


def fit(fitted, folder, epochs=2, state=None):
    """Fit with the callbacks; what is said, and the callback."""
    said = []
    events = Events(Writer(folder), 2)
    norms = GradientNorms(events, said.append)
    if state is not None:
        norms.set_state(state)
    fitted.fit(PHOTOS, LABELS, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=[events, norms])
    events.writer.close()
    return said, norms


def scaled(factor):
    """The network with one stage's weights as many times larger as the next one's are smaller: the same function.

    It wants a tiny learning rate, lest a step that is large beside the small weights makes another one of it.
    """
    model = network()
    for name, by in (("conv_2", factor), ("conv_3", 1 / factor)):
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([kernel * by, bias])
    np.testing.assert_allclose(np.asarray(model(PHOTOS)), np.asarray(network()(PHOTOS)), rtol=1e-4)
    return model


def test_stages_whose_gradients_vanish_or_explode_are_named_once(tmp_path):
    said, _ = fit(watched(scaled(1e8), rate=1e-12), tmp_path / "scaled")
    assert len(said) == 2
    assert said[0].startswith("gradients vanish in stage_2 (conv_2): ")
    assert said[1].startswith("gradients explode in stage_3 (conv_3): their norm is ")
    assert all(line.endswith(", in epoch 1") for line in said)
    assert "more than 10000" in said[1]


def test_nothing_is_said_of_a_sound_network(tmp_path):
    said, _ = fit(watched(network()), tmp_path)
    assert said == []


def test_what_was_said_before_a_resume_is_not_said_again(tmp_path):
    first, norms = fit(watched(scaled(1e8), rate=1e-12), tmp_path / "before", epochs=1)
    assert len(first) == 2
    again, _ = fit(watched(scaled(1e8), rate=1e-12), tmp_path / "after", epochs=1, state=norms.get_state())
    assert again == []


def test_the_thresholds():
    def found(*norms):
        weights = np.full(len(norms), 100)
        names = [f"stage_{number}" for number in range(1, len(norms) + 1)]
        return [place for place, _ in judged(Noted(names, names, weights, None), np.array(norms))]

    assert found(1.0, 1.0, 1.0) == []
    assert found(1.01 * VANISHING, 1.0, 1.0) == []
    assert found(0.99 * VANISHING, 1.0, 1.0) == ["stage_1 vanishes"]
    assert found(1.0, EXPLODING, 1.0) == []
    assert found(1.0, 1.01 * EXPLODING, 1.0) == ["stage_2 explodes"]
    # All alike, as at the end of a training that has learnt everything: nothing is wrong.
    assert found(1e-9, 1e-9, 1e-9) == []
    assert found(1.0) == found(0.0) == []
