import math

import keras
import numpy as np
import pytest

from kerastk.networks.classifier import classifier
from kerastk.networks.cuts import cache_cut, cut_for, split_at, stages
from kerastk.training.device import set_precision
from kerastk.training.phases import Phase, learning_rate, optimizer, prepare, schedule
from tests.conftest import woken

PHOTOS = np.random.default_rng(7).integers(0, 256, (8, 32, 32, 3), "uint8")
LABELS = np.eye(3, dtype="float32")[np.arange(8) % 3]


def _phase(unfreeze, **values):
    settings = {"name": "test", "epochs": 2, "learning_rate": 1e-2, "warmup_epochs": 0.0, **values}
    return Phase(unfreeze=unfreeze, **settings)


def _classifier(base="mobilenet_v2_0.35", dropout=0.0):
    keras.utils.set_random_seed(11)
    return woken(classifier(base, classes=3, image_size=32, dropout=dropout, weights=None), PHOTOS)


def _fit(model, phase, *, eagerly=True):
    fitted = prepare(model, phase)
    fitted.compile(
        optimizer(phase, 2, weight_decay=0.01, clipnorm=1.0, precision="float32"),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        run_eagerly=eagerly,
    )
    return fitted.fit(PHOTOS, LABELS, batch_size=4, epochs=phase.epochs, shuffle=False, verbose=0)


def _values(model):
    return {each.path: np.array(each) for each in model.weights}


def _changed(model, before):
    return {each.path for each in model.weights if not np.array_equal(each, before[each.path])}


def _statistics(model):
    return {path for path in _values(model) if path.rpartition("/")[2] in ("moving_mean", "moving_variance")}


def _normalisation(model):
    layers = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    return {weight.path for layer in layers for weight in layer.weights}


@pytest.fixture(scope="module")
def model():
    """Shared by the tests that do not go by its weights' values."""
    return _classifier()


def test_a_frozen_batch_normalisation_stays_frozen_through_fit():
    """Invariant 4, compiled as users run it: not one bit of the moving statistics moves, nor of the prefix."""
    model = _classifier()
    prefix, tail = split_at(model, cut_for(model, 1))
    before = _values(model)
    _fit(model, _phase(1), eagerly=False)

    changed = _changed(model, before)
    assert not changed & _statistics(model)
    assert not changed & set(_values(prefix))
    assert changed == set(_values(tail)) - _normalisation(tail)
    assert len(changed) > 5


def test_with_everything_unfrozen_batch_normalisation_is_frozen_all_the_same():
    model = _classifier()
    before = _values(model)
    _fit(model, _phase("all", epochs=1))
    assert _changed(model, before) == set(before) - _normalisation(model)


def test_a_head_phase_trains_the_head_alone():
    model = _classifier()
    before = _values(model)
    _fit(model, _phase("head"))
    assert _changed(model, before) == {"head/kernel", "head/bias"}


def test_a_fresh_phase_trains_all_and_moves_the_statistics():
    model = _classifier()
    before = _values(model)
    _fit(model, _phase("all", fresh=True))
    changed = _changed(model, before)
    assert _statistics(model) <= changed
    assert "Conv1/kernel" in changed
    assert "head/kernel" in changed


def test_dropout_of_a_frozen_prefix_is_in_inference_mode_during_fit():
    model = _classifier("efficientnet_b0")
    assert [each for each in model.layers if isinstance(each, keras.layers.Dropout) and each.rate > 0]
    phase = _phase("head")
    fitted = prepare(model, phase)
    # Without a learning rate the loss of each epoch is the same, unless something is dropped.
    fitted.compile(
        keras.optimizers.SGD(0.0), loss=keras.losses.CategoricalCrossentropy(from_logits=True), run_eagerly=True
    )
    history = fitted.fit(PHOTOS, LABELS, batch_size=8, epochs=2, shuffle=False, verbose=0).history["loss"]
    assert history[0] == history[1]
    assert history[0] == pytest.approx(fitted.evaluate(PHOTOS, LABELS, verbose=0), rel=1e-4)


def test_dropout_above_the_cut_is_live_during_fit():
    model = _classifier(dropout=0.5)
    fitted = prepare(model, _phase("head"))
    assert not np.array_equal(fitted(PHOTOS, training=True), fitted(PHOTOS, training=True))
    assert np.array_equal(fitted(PHOTOS, training=False), fitted(PHOTOS, training=False))


def test_what_is_fitted_gives_the_logits_of_the_model(model):
    for unfreeze in ("head", 2, "all"):
        logits = prepare(model, _phase(unfreeze))(PHOTOS)
        np.testing.assert_allclose(np.asarray(keras.ops.softmax(logits)), np.asarray(model(PHOTOS)), atol=1e-5)


@pytest.mark.parametrize("cached", [False, True], ids=["photos", "activations"])
def test_manifold_mixup_mixes_what_the_frozen_part_makes_of_the_photos(model, cached):
    phase = _phase(1, manifold_mixup=0.4)
    kept = cache_cut(model, cut_for(model, 1)).tensor
    activations = np.asarray(keras.Model(model.input, kept)(PHOTOS))
    partner, share = np.array([3, 0, 7, 1, 2, 5, 4, 6], np.int32), np.full(8, 0.3, np.float32)
    rest = prepare(model, _phase(1), kept)
    expected = np.asarray(rest(0.3 * activations + 0.7 * activations[partner]))
    fitted = prepare(model, phase, kept if cached else None)
    found = fitted((activations if cached else PHOTOS, partner, share))
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-4)
    # What is judged is not mixed.
    plain = fitted(activations if cached else PHOTOS)
    np.testing.assert_allclose(np.asarray(plain), np.asarray(rest(activations)), atol=1e-4)


def _trainable(model, phase):
    return {each.path for each in prepare(model, phase).trainable_weights}


def test_preparing_again_forgets_the_phase_before(model):
    count = len(stages(model)) + 1
    phases = [_phase("all", fresh=True), _phase("head"), _phase("all"), *map(_phase, range(1, count + 1))]
    first = [_trainable(model, phase) for phase in phases]
    for phase, expected in reversed(list(zip(phases, first, strict=True))):
        assert _trainable(model, phase) == expected
    fresh, head, everything, *by_stage = first
    assert fresh == {each.path for each in model.weights} - _statistics(model)
    assert head == {"head/kernel", "head/bias"}
    assert everything == fresh - _normalisation(model) == by_stage[-1]
    # Each stage adds to what is trained.
    for less, more in zip([head, *by_stage], by_stage, strict=False):
        assert less < more


@pytest.mark.parametrize(("epochs", "warmup_epochs", "steps"), [(10, 1.0, 20), (4, 0.5, 8), (3, 2.5, 7)])
def test_the_learning_rate_warms_up_linearly_then_falls_by_half_a_cosine(epochs, warmup_epochs, steps):
    curve = schedule(_phase("all", epochs=epochs, warmup_epochs=warmup_epochs, learning_rate=0.3), steps)
    total, warmup = epochs * steps, round(warmup_epochs * steps)

    def expected(step):
        if step < warmup:
            return 0.3 * step / warmup
        return 0.3 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2

    for step in range(total + 1):
        assert float(curve(step)) == pytest.approx(expected(step), rel=1e-4, abs=1e-7)
    assert float(curve(warmup)) == pytest.approx(0.3)
    assert float(curve(total)) == pytest.approx(0, abs=1e-7)


def test_without_warm_up_it_begins_at_the_learning_rate():
    curve = schedule(_phase("all", epochs=5), 10)
    assert float(curve(0)) == pytest.approx(1e-2)
    assert float(curve(25)) == pytest.approx(5e-3)
    assert float(curve(50)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_warm_up_longer_than_the_phase_ends_before_its_last_step(epochs):
    curve = schedule(_phase("all", epochs=epochs, warmup_epochs=9.0), 1)
    assert float(curve(epochs - 1)) == pytest.approx(1e-2)


def test_weight_decay_spares_biases_and_the_scales_of_normalisation():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, bias_initializer="ones"),
            keras.layers.DepthwiseConv2D(3, bias_initializer="ones"),
            keras.layers.BatchNormalization(beta_initializer="ones"),
            keras.layers.LayerNormalization(beta_initializer="ones"),
            keras.layers.Dense(2, bias_initializer="ones"),
        ]
    )
    before = _values(model)
    made = optimizer(_phase("all", learning_rate=0.1), 10, weight_decay=0.5, clipnorm=0.0, precision="float32")
    # With gradients of zero only the decay moves anything.
    made.apply([keras.ops.zeros_like(each) for each in model.trainable_weights], model.trainable_weights)

    changed = _changed(model, before)
    assert changed == {path for path in before if path.endswith("kernel")}
    for path in changed:
        found = next(np.array(each) for each in model.weights if each.path == path)
        np.testing.assert_allclose(found, before[path] * (1 - 0.1 * 0.5), rtol=1e-5)


def test_the_head_of_a_real_network_is_decayed_and_its_bias_is_not(model):
    before = _values(model)
    trained = prepare(model, _phase("all", fresh=True)).trainable_weights
    made = optimizer(_phase("all", learning_rate=1e-4), 10, weight_decay=0.5, clipnorm=1.0, precision="float32")
    made.apply([keras.ops.zeros_like(each) for each in trained], trained)
    assert _changed(model, before) == {path for path in before if path.endswith("kernel")}


def test_gradients_are_clipped_by_their_norm_over_all_weights():
    def moved(clipnorm):
        weights = [keras.Variable([0.0, 0.0], name="kernel"), keras.Variable([0.0], name="kernel_again")]
        made = optimizer(
            _phase("all", epochs=100, learning_rate=1e-3), 100, weight_decay=0.0, clipnorm=clipnorm, precision="float32"
        )
        made.apply([keras.ops.array([3000.0, 0.0]), keras.ops.array([4000.0])], weights)
        made.apply([keras.ops.array([0.6, 0.0]), keras.ops.array([0.8])], weights)
        return np.concatenate([np.array(each) for each in weights])

    # Clipped to norm 1 over both, the first gradient equals the second, and each step goes one learning rate.
    np.testing.assert_allclose(moved(1.0), [-2e-3, 0, -2e-3], rtol=1e-3)
    # Unclipped the second is as nothing beside the first.
    np.testing.assert_allclose(moved(0.0)[[0, 2]], [-1.67e-3, -1.67e-3], rtol=1e-2)
    assert optimizer(_phase("all"), 10, weight_decay=0.0, clipnorm=0.0, precision="float32").global_clipnorm is None


def test_float16_scales_the_loss_and_trains():
    phase = _phase("all", learning_rate=1e-3)
    made = optimizer(phase, 10, weight_decay=0.0, clipnorm=1.0, precision="float16")
    assert isinstance(made, keras.optimizers.LossScaleOptimizer)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(keras.layers.Dense(4)(inputs)))
    set_precision(model, "float16")
    model.compile(made, loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    before = np.array(model.layers[1].kernel)
    model.fit(np.ones((8, 4), "float32"), np.eye(3, dtype="float32")[[0, 1, 2, 0, 0, 0, 0, 0]], verbose=0)
    after = np.array(model.layers[1].kernel)
    assert np.isfinite(after).all()
    # Unscaled again before the step: a step of AdamW is at most about its learning rate.
    assert 0 < np.abs(after - before).max() < 2e-3


def _residual():
    """A network of two residual blocks, with a layer before and one behind; always of the same values."""
    keras.utils.set_random_seed(5)
    photo = keras.Input((32, 32, 3), dtype="uint8")
    start = keras.layers.Rescaling(1 / 255)(photo)
    stem = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="stem")(start)
    first = keras.layers.Conv2D(4, 3, padding="same", name="first")(stem)
    joined = keras.layers.Add()([stem, first])
    second = keras.layers.Conv2D(4, 1, name="second")(joined)
    second = keras.layers.Conv2D(4, 3, padding="same", name="second_again")(second)
    last = keras.layers.Conv2D(4, 1, name="last")(keras.layers.Add()([joined, second]))
    pooled = keras.layers.GlobalAveragePooling2D()(last)
    logits = keras.layers.Dense(3, name="head")(keras.layers.Dropout(0.0, name="head_dropout")(pooled))
    return keras.Model(photo, keras.layers.Softmax()(logits))


# The block of each layer, from the top; what comes before the first residual block is one with it.
DEPTHS = {"head": 0, "last": 1, "second": 2, "second_again": 2, "first": 3, "stem": 3}


def _decayed(model, share, phase, **values):
    settings = {"weight_decay": 0.0, "clipnorm": 1.0, "precision": "float32", **values}
    return optimizer(phase, 2, layer_decay=share, model=model, **settings)


def test_layer_decay_lowers_the_learning_rate_from_block_to_block():
    model = _classifier()
    phase = _phase("all", fresh=True, learning_rate=0.5)
    trained = prepare(model, phase).trainable_weights
    before = _values(model)
    # With gradients of zero only the weight decay moves anything, by each block's own learning rate.
    made = _decayed(model, 0.8, phase, weight_decay=1.0)
    made.apply([keras.ops.zeros_like(each) for each in trained], trained)

    def power(layer):
        path = f"{layer.name}/kernel"
        left = np.linalg.norm(np.array(layer.kernel)) / np.linalg.norm(before[path])
        return math.log((1 - left) / 0.5, 0.8)

    powers = {each.name: power(each) for each in model.layers if hasattr(each, "kernel")}
    np.testing.assert_allclose(list(powers.values()), np.round(list(powers.values())), atol=1e-3)
    powers = {name: round(value) for name, value in powers.items()}
    assert powers["head"] == 0
    assert powers["Conv_1"] == powers["block_16_project"] == 1
    assert {powers[f"block_15_{name}"] for name in ("expand", "depthwise", "project")} == {2}
    assert powers["block_14_project"] == 3
    # From the input to the head it never falls, and no power is left out.
    assert list(powers.values()) == sorted(powers.values(), reverse=True)
    assert set(powers.values()) == set(range(powers["Conv1"] + 1))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_with_layer_decay_a_network_is_fitted_each_block_at_its_own_pace(precision):
    model = _residual()
    set_precision(model, precision)
    phase = _phase("all", epochs=1, learning_rate=1e-3)
    fitted = prepare(model, phase)
    made = _decayed(model, 0.5, phase, precision=precision)
    assert isinstance(made, keras.optimizers.LossScaleOptimizer) == (precision == "float16")
    before = _values(model)
    fitted.compile(made, loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    fitted.fit(PHOTOS, LABELS, batch_size=8, verbose=0)
    # The first step of Adam goes one learning rate, whatever the gradient.
    for name, depth in DEPTHS.items():
        step = np.abs(np.array(model.get_layer(name).kernel) - before[f"{name}/kernel"]).max()
        assert step == pytest.approx(1e-3 * 0.5**depth, rel=0.02), name


@pytest.mark.parametrize("clipnorm", [0.0, 1.0])
def test_layer_decay_clips_gradients_by_their_norm_over_all_blocks(clipnorm):
    random = np.random.default_rng(3)
    phase = _phase("all", epochs=9, learning_rate=0.1)
    models = {share: _residual() for share in (None, 1.0, 0.5)}
    made = {share: _decayed(model, share, phase, clipnorm=clipnorm) for share, model in models.items()}
    shapes = [weight.shape for weight in models[None].trainable_weights]
    # The first is far too large, in some blocks more than in others; the second is not too large.
    for size in (3.0, 0.02, 0.5):
        scales = [size * 10.0 ** (place % 4) for place, _ in enumerate(shapes)] if size > 1 else [size] * len(shapes)
        gradients = [random.normal(0, scale, shape) for scale, shape in zip(scales, shapes, strict=True)]
        for share, model in models.items():
            made[share].apply([keras.ops.array(each, "float32") for each in gradients], model.trainable_weights)
    single, same, falling = (_values(model) for model in models.values())
    for path, value in single.items():
        np.testing.assert_allclose(same[path], value, rtol=1e-4, atol=1e-6, err_msg=path)
    # The head, whose learning rate is the phase's own, goes as far as without; what lies below less far.
    np.testing.assert_allclose(falling["head/kernel"], single["head/kernel"], rtol=1e-4, atol=1e-6)
    start = _values(_residual())
    assert np.abs(falling["stem/kernel"] - start["stem/kernel"]).max() < 0.2 * np.abs(
        single["stem/kernel"] - start["stem/kernel"]).max()  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("share", [None, 0.5])
def test_the_learning_rate_that_is_shown_is_the_heads(share, precision):
    model = _residual()
    phase = _phase("all", epochs=2, learning_rate=0.25)
    made = _decayed(model, share, phase, precision=precision)
    assert learning_rate(made) == 0.25
    fitted = prepare(model, phase)
    fitted.compile(made, loss=keras.losses.CategoricalCrossentropy(from_logits=True), run_eagerly=True)
    fitted.fit(PHOTOS, LABELS, batch_size=4, verbose=0)
    # After half of the steps, half a cosine.
    assert learning_rate(made) == pytest.approx(0.125)


def test_layer_decay_leaves_what_is_frozen_alone():
    model = _classifier()
    prefix, tail = split_at(model, cut_for(model, 1))
    before = _values(model)
    phase = _phase(1)
    fitted = prepare(model, phase)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    fitted.compile(_decayed(model, 0.75, phase), loss=loss, run_eagerly=True)
    fitted.fit(PHOTOS, LABELS, batch_size=4, verbose=0)
    assert not _changed(model, before) & set(_values(prefix))
    assert _changed(model, before) == set(_values(tail)) - _normalisation(tail)
