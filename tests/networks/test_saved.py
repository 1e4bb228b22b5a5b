import json
import zipfile

import keras
import numpy as np
import pytest

from kerastk.networks import saved
from kerastk.networks.activations import ACTIVATIONS
from kerastk.networks.autoencoder import UPSAMPLERS, Standard, autoencoder, decoder, encoder
from kerastk.networks.bases import BASES


def test_every_base_is_made_of_known_classes(member, graph, tmp_path):
    config = keras.saving.serialize_keras_object(graph(member, BASES[member].image_size))
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        for name in saved.MEMBERS:
            archive.writestr(name, json.dumps(config) if name == "config.json" else "")
    saved._check(tmp_path / "model.keras")
    assert (tmp_path / "model.keras").stat().st_size < saved.MAX_CONFIG / 4


SHAPES = {"dense": (7, 5, 1), "conv": (7, 5, 3), "rows": (4,)}
ROWS = Standard(np.array([1.0, -2, 0, 300]), np.array([0.5, 2, 1, 40]))
KINDS = [
    ("rows", {"kind": "dense", "standard": ROWS}),
    ("dense", {"kind": "dense"}),
    ("dense", {"kind": "dense", "sigmoid_code": True, "start": "normal"}),
    ("dense", {"kind": "dense", "variational": True}),
    *(("conv", {"kind": "conv", "upsample": upsample}) for upsample in UPSAMPLERS),
    ("conv", {"kind": "conv", "upsample": "subpixel", "variational": True}),
    *(("rows", {"kind": "dense", "standard": ROWS, "activation": name}) for name in ACTIVATIONS),
]


@pytest.mark.parametrize(("items", "options"), KINDS, ids=str)
def test_every_autoencoder_and_its_halves_are_loaded_and_answer_the_same(items, options, tmp_path):
    shape = SHAPES[items]
    model = autoencoder(shape, widths=(6, 4), latent=2, **{"activation": "swish", **options})
    random = np.random.default_rng(0)
    given = random.integers(0, 256, (3, *shape), np.uint8) if items != "rows" else random.normal(size=(3, 4))
    codes = random.normal(size=(3, 2)).astype(np.float32)
    for part, inputs in ((model, given), (encoder(model), given), (decoder(model), codes)):
        part.save(tmp_path / "model.keras")
        expected, found = part.predict_on_batch(inputs), saved.load(tmp_path / "model.keras").predict_on_batch(inputs)
        for name in expected if isinstance(expected, dict) else [...]:
            np.testing.assert_array_equal(found[name], expected[name])


def test_what_is_allowed_for_autoencoders_alone_stands_in_one():
    held = set()
    for items, options in KINDS:
        model = autoencoder(SHAPES[items], widths=(6, 4), latent=2, **{"activation": "swish", **options})
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
        held |= {each["class_name"] for each in saved._objects(config)}
    assert {"Conv2DTranspose", "DepthToSpace", "Flatten", "ICNR", "UpSampling2D"} <= held
