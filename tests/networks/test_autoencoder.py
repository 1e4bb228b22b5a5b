import keras
import numpy as np
import pytest
from keras import ops

from kerastk.networks.activations import activation
from kerastk.networks.autoencoder import (
    ICNR,
    UPSAMPLERS,
    Standard,
    autoencoder,
    decoder,
    dense_pairs,
    encoder,
    parts,
    scaler,
    to_head,
)
from kerastk.training.device import set_precision

ROWS = Standard(np.array([1.0, -2.0, 30.0, 0.0, 4.0]), np.array([0.5, 2.0, 10.0, 1.0, 3.0]))
KINDS = {
    "dense": {"shape": (8, 6, 1), "kind": "dense", "widths": (20, 10)},
    "deep": {"shape": (8, 8, 3), "kind": "dense", "widths": (20, 12, 8, 8)},
    "rows": {"shape": (5,), "kind": "dense", "widths": (12,), "standard": ROWS},
    "sigmoid code": {"shape": (8, 8, 1), "kind": "dense", "widths": (20,), "sigmoid_code": True},
    "variational": {"shape": (12, 12, 1), "kind": "conv", "widths": (4,), "upsample": "resize", "variational": True},
    **{
        each: {"shape": (13, 10, 3), "kind": "conv", "widths": (4, 6), "upsample": each, "activation": "gelu"}
        for each in UPSAMPLERS
    },
}


def small(name, **options):
    keras.utils.set_random_seed(5)
    given = {"latent": 4, "activation": "swish", **KINDS[name], **options}
    return autoencoder(given.pop("shape"), **given)


def items(model, count=3):
    random, shape = np.random.default_rng(1), model.input.shape[1:]
    if len(shape) == 1:
        return (ROWS.mean + ROWS.deviation * random.normal(size=(count, *shape))).astype("float32")
    return random.integers(0, 256, (count, *shape), np.uint8)


def answers(model, given):
    return {name: ops.convert_to_numpy(each) for name, each in model(given).items()}


@pytest.mark.parametrize("kind", KINDS)
def test_saved_loaded_the_same_in_safe_mode(kind, tmp_path):
    model = small(kind)
    given = items(model)
    before = answers(model, given)
    model.save(tmp_path / "model.keras")
    after = answers(keras.saving.load_model(tmp_path / "model.keras", safe_mode=True, compile=False), given)
    assert before.keys() == after.keys()
    for name, each in before.items():
        np.testing.assert_array_equal(each, after[name])


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_ranges_are_those_of_the_items(kind):
    model = small(kind)
    given = items(model)
    found = answers(model, given)
    assert found["code"].shape == (3, 4)
    assert found["reconstruction"].shape == given.shape
    assert found["reconstruction"].dtype == np.float32
    assert ("log_variance" in found) == (kind == "variational")
    if len(given.shape) == 4:
        assert (found["reconstruction"] >= 0).all()
        assert (found["reconstruction"] <= 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_halves_make_the_whole(kind):
    model = small(kind)
    given = items(model)
    whole = answers(model, given)
    code = ops.convert_to_numpy(encoder(model)(given))
    np.testing.assert_allclose(code, whole["code"], rtol=1e-6)
    made = ops.convert_to_numpy(decoder(model)(code))
    np.testing.assert_allclose(made, whole["reconstruction"], rtol=1e-5, atol=1e-6)
    # Again through both.
    assert ops.convert_to_numpy(encoder(model)(np.rint(255 * made).astype("uint8") if made.ndim == 4 else made)).shape == (3, 4)  # fmt: skip  # noqa: E501


def test_rows_are_standardised_inside_and_come_back_in_their_own_units():
    model = small("rows")
    given = items(model, 400)
    inside = ops.convert_to_numpy(scaler(model)(given))
    np.testing.assert_allclose(inside, (given - ROWS.mean) / ROWS.deviation, rtol=1e-4, atol=1e-4)
    raw = ops.convert_to_numpy(to_head(model)(ops.convert_to_numpy(encoder(model)(given))))
    np.testing.assert_allclose(answers(model, given)["reconstruction"], raw * ROWS.deviation + ROWS.mean, rtol=1e-4)


def test_pixels_are_scaled_inside():
    model = small("dense")
    given = items(model)
    np.testing.assert_allclose(ops.convert_to_numpy(scaler(model)(given)), given / 255, rtol=1e-6)
    assert model.input.dtype == "uint8"


def test_a_sub_pixel_convolution_begins_as_nearest_neighbours():
    keras.utils.set_random_seed(1)
    layer = keras.layers.Conv2D(4 * 3, 3, padding="same", kernel_initializer=ICNR())
    maps = np.random.default_rng(0).normal(size=(2, 5, 5, 6)).astype("float32")
    large = ops.convert_to_numpy(ops.depth_to_space(layer(maps), 2))
    assert large.shape == (2, 10, 10, 3)
    np.testing.assert_array_equal(large[:, ::2, ::2], large[:, 1::2, 1::2])
    np.testing.assert_array_equal(large[:, ::2, ::2], large[:, ::2, 1::2])
    # Not one number for all of them.
    assert large[:, ::2, ::2].std() > 0.1


def test_the_kernel_of_a_sub_pixel_convolution_has_the_variance_of_he():
    keras.utils.set_random_seed(1)
    kernel = ops.convert_to_numpy(ICNR()((3, 3, 200, 40)))
    assert kernel.std() == pytest.approx((2 / (9 * 200)) ** 0.5, rel=0.05)
    with pytest.raises(ValueError, match="multiple of 4"):
        ICNR()((3, 3, 8, 6))


def test_dense_layers_are_paired_from_the_outside_in():
    model = small("deep")
    names = [(up.name, down.name) for up, down in dense_pairs(model)]
    assert names == [("encoder_1", "head"), ("encoder_2", "decoder_4"), ("encoder_3", "decoder_3"),
                     ("encoder_4", "decoder_2"), ("code", "decoder_1")]  # fmt: skip
    for up, down in dense_pairs(model):
        assert up.kernel.shape == down.kernel.shape[::-1]


def test_every_operation_belongs_to_one_part():
    model = small("resize")
    found = parts(model)
    assert list(found) == ["input", "encoder_1", "encoder_2", "code", "decoder_0", "decoder_1", "decoder_2", "head"]
    assert [name for names in found.values() for name in names] == [each.name for each in model.operations]


def test_what_is_compared_stays_in_float32():
    model = small("resize")
    set_precision(model, "bfloat16")
    found = model(items(model))
    assert all(keras.backend.standardize_dtype(each.dtype) == "float32" for each in found.values())
    assert model.get_layer("encoder_1_halve").compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "round"}, {"kind": "conv"}, {"kind": "conv", "upsample": "fourier"}],
)
def test_what_cannot_be_built_is_refused(wrong):
    with pytest.raises(ValueError, match="no autoencoder of kind"):
        small("dense", **wrong)


def test_the_sigmoid_is_one_of_the_activations():
    assert float(activation("sigmoid")(np.float32(0))) == 0.5
