import sys

import keras
import numpy as np
import pytest
from keras.src.applications import imagenet_utils
from keras.src.utils import file_utils

from kerastk.errors import RecipeError
from kerastk.networks.bases import BASES, _plain, find
from tests.networks.conftest import KERAS_OWN


class _Asked(Exception):
    pass


def _builder(row):
    return getattr(keras.applications, row.function), {} if row.alpha is None else {"alpha": row.alpha}


def test_a_row_names_the_file_that_keras_asks_for(keras_member, monkeypatch):
    asked = {}

    def get_file(fname, origin, file_hash=None, cache_subdir=None, **_):
        asked.update(fname=fname, origin=origin, file_hash=file_hash, cache_subdir=cache_subdir)
        raise _Asked

    monkeypatch.setattr(file_utils, "get_file", get_file)
    row = BASES[keras_member]
    build, arguments = _builder(row)
    shape = (row.image_size, row.image_size, 3)
    # Without values for the weights a network is built in a fraction of a second.
    with keras.StatelessScope(initialize_variables=False), pytest.raises(_Asked):
        build(include_top=False, weights="imagenet", input_shape=shape, **arguments)

    assert asked == {
        "fname": row.file,
        "origin": row.address,
        "file_hash": row.hash or None,
        "cache_subdir": "models",
    }


@pytest.mark.parametrize("name", [name for name in KERAS_OWN if "v3" not in name or name == "inception_v3"])
def test_a_rows_size_is_keras_own(name, monkeypatch):
    asked = {}

    def obtain_input_shape(input_shape, default_size, min_size, **_):
        asked.update(default_size=default_size, min_size=min_size)
        raise _Asked

    monkeypatch.setattr(imagenet_utils, "obtain_input_shape", obtain_input_shape)
    build, arguments = _builder(BASES[name])
    with pytest.raises(_Asked):
        build(weights=None, **arguments)

    assert asked == {"default_size": BASES[name].image_size, "min_size": BASES[name].smallest}


@pytest.mark.parametrize("name", [name for name in BASES if name.startswith("mobilenet_v3")])
def test_mobilenet_v3_takes_any_size_so_that_of_its_weights_is_its_own(name):
    row = BASES[name]
    assert f"_{row.image_size}_" in row.file
    assert row.smallest == 32
    build, arguments = _builder(row)
    with pytest.raises(ValueError, match="at least 32x32"):
        build(weights=None, include_top=False, input_shape=(31, 31, 3), **arguments)


def test_scaling_is_that_of_preprocess_input(keras_member, graph, photos):
    model = graph(keras_member, BASES[keras_member].smallest)
    flips = [each for each in model.operations if type(each).__name__ == "Flip"]
    scaled = flips[0].output if flips else model.get_layer("scaling").output
    images = photos(2, BASES[keras_member].smallest)

    found = np.asarray(keras.Model(model.input, scaled)(images))

    module = sys.modules[_builder(BASES[keras_member])[0].__module__]
    expected = module.preprocess_input(images.astype("float32"))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(found).max() > 0.5


def test_every_family_of_keras_applications_is_there():
    keras_own = {name for name in dir(keras.applications) if name[0].isupper()}
    # Older names of the same functions.
    rows = [BASES[name] for name in KERAS_OWN]
    assert {row.function for row in rows} == keras_own - {"MobileNetV3"}
    assert len({(row.function, row.alpha) for row in rows}) == len(rows) == 50


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("resnet50_v2", "resnet50_v2"),
        ("ResNet50V2", "resnet50_v2"),
        ("resnet50v2", "resnet50_v2"),
        ("ResNet-50-V2", "resnet50_v2"),
        ("EfficientNetV2B0", "efficientnet_v2_b0"),
        ("MobileNetV2", "mobilenet_v2"),
        ("mobilenet v2 0.35", "mobilenet_v2_0.35"),
        ("InceptionResNetV2", "inception_resnet_v2"),
        ("ConvNeXtXLarge", "convnext_xlarge"),
        ("VGG16", "vgg16"),
    ],
)
def test_find_takes_a_name_as_people_write_it(written, name):
    assert find(written) == name


def test_find_knows_every_keras_name_and_no_two_rows_are_confused():
    assert len({_plain(name) for name in BASES}) == len(BASES)
    for name, row in BASES.items():
        assert find(name) == name
        if row.alpha is None:
            assert find(row.function) == name


def test_an_unknown_base_is_refused_with_the_nearest():
    with pytest.raises(RecipeError, match=r"no base is called 'resnet5'\. Did you mean .*resnet50\b"):
        find("resnet5")
    with pytest.raises(RecipeError, match="mobilenet_v2"):
        find("moblienet_v2")
    with pytest.raises(RecipeError, match="`kerastk bases` lists them"):
        find("qqqq")


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("vgg16", "VGG"),
        ("resnet152", "ResNet"),
        ("resnet50_v2", "ResNetV2"),
        ("inception_v3", "InceptionV3"),
        ("inception_resnet_v2", "InceptionResNetV2"),
        ("xception", "Xception"),
        ("mobilenet_0.25", "MobileNet"),
        ("mobilenet_v2_1.4", "MobileNetV2"),
        ("mobilenet_v3_large", "MobileNetV3"),
        ("mobilenet_v3_small_0.75", "MobileNetV3"),
        ("densenet201", "DenseNet"),
        ("nasnet_mobile", "NASNet"),
        ("nasnet_large", "NASNet"),
        ("efficientnet_b7", "EfficientNet"),
        ("efficientnet_v2_s", "EfficientNetV2"),
        ("efficientnet_v2_b3", "EfficientNetV2"),
        ("convnext_xlarge", "ConvNeXt"),
        ("mini", "mini"),
    ],
)
def test_family(name, family):
    assert BASES[name].family == family
