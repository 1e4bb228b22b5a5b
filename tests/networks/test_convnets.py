import keras
import numpy as np
import pytest
from keras import ops

from kerastk.errors import RecipeError
from kerastk.networks import saved
from kerastk.networks.convnets import NAMES, NETS, convnet, find, find_net, whiten
from kerastk.networks.cuts import features
from kerastk.networks.members import Members

# A name of each row of the table that is quick to build.
SMALL = ("lenet5", "alexnet-small", "allconv", "vgg-small", "resnet20", "wrn-16-1", "fast-8")


def images(count, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def made(name, shape=(32, 32, 3), **options):
    keras.utils.set_random_seed(3)
    return convnet(name, shape, classes=10, **{"dropout": 0.0, **options})


def answer(model, given):
    return ops.convert_to_numpy(model(given, training=False))


@pytest.mark.parametrize(
    ("name", "shape", "millions"),
    [
        # Counted by hand from the paper's table; in PyTorch's tutorial, too.
        ("lenet5", (28, 28, 1), 0.061706),
        # The figures of the papers, in millions as they round them.
        ("allconv", (32, 32, 3), 1.37),
        ("resnet20", (32, 32, 3), 0.27),
        ("resnet56", (32, 32, 3), 0.85),
        ("wrn-16-4", (32, 32, 3), 2.7),
        ("fast-64", (32, 32, 3), 1.97),
    ],
)
def test_as_many_parameters_as_the_authors_count(name, shape, millions):
    trained = sum(int(np.prod(each.shape)) for each in made(name, shape).trainable_weights)
    assert abs(trained / 1e6 - millions) <= 0.5 * 10 ** -len(str(millions).split(".")[1]) + 0.02 * millions * (
        name != "lenet5"
    )


@pytest.mark.slow
def test_the_largest_have_as_many_parameters_as_their_authors_count():
    with keras.StatelessScope(initialize_variables=False):
        assert round(made("wrn-28-10").count_params() / 1e6, 1) == 36.5
        # 60 million are the paper's, on two halves that see each other in two layers only.
        assert 62e6 < convnet("alexnet", (227, 227, 3), classes=1000, dropout=0.0).count_params() < 63e6


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("options", [{}, {"normalisation": "group", "activation": "leaky_relu"}], ids=["own", "other"])
def test_saved_loaded_the_same(name, options, tmp_path):
    model = made(name, dropout=0.2, **options)
    given = images(3, (32, 32, 3))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(answer(saved.load(tmp_path / "model.keras"), given), answer(model, given))
    np.testing.assert_allclose(answer(model, given).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_smallest_images_pass_and_smaller_ones_are_refused(name):
    smallest = find_net(name)[0].smallest
    assert made(name, (smallest, smallest, 1)).output.shape == (None, 10)
    with pytest.raises(RecipeError, match=f"image_size must be at least {smallest} with {name}; got {smallest - 1}"):
        made(name, (smallest - 1, smallest - 1, 1))


def test_options_replace_what_a_network_has():
    kinds = {type(each).__name__ for each in made("vgg-small").layers}
    assert {"BatchNormalization", "MaxPooling2D"} <= kinds
    other = made("vgg-small", normalisation="layer", pooling="average", activation="tanh", initialiser="glorot")
    kinds = {type(each).__name__ for each in other.layers}
    assert {"LayerNormalization", "AveragePooling2D"} <= kinds
    assert not {"BatchNormalization", "MaxPooling2D"} & kinds
    assert isinstance(other.get_layer("conv_1").kernel_initializer, keras.initializers.GlorotUniform)
    assert any(each.name.startswith("tanh") for each in other.layers)
    bare = made("vgg-small", normalisation="none", pooling="stride")
    assert not any("norm" in each.name or "pool" in each.name for each in bare.layers)
    # Where nothing is normalised, convolutions have biases.
    assert bare.get_layer("conv_1").use_bias
    assert not made("vgg-small").get_layer("conv_1").use_bias


def test_a_pooling_that_a_network_does_not_have_is_refused():
    with pytest.raises(RecipeError, match=r"resnet20 halves its maps by convolutions .* lenet5.* do"):
        made("resnet20", pooling="max")


def test_a_residual_block_of_zeros_lets_its_input_pass():
    model = made("resnet20")
    given = images(2, (32, 32, 3))
    first = keras.Model(model.input, model.get_layer("relu_1").output)
    last = keras.Model(model.input, model.get_layer("add_9").output)
    for layer in model.layers:
        if layer.name.startswith("conv") and layer.name != "conv_1":
            layer.set_weights([np.zeros_like(each) for each in layer.get_weights()])
    shortened = answer(first, given)[:, ::4, ::4]
    # Option A: every second pixel twice, and channels of zeros on both sides.
    np.testing.assert_allclose(answer(last, given)[..., 24:40], shortened, rtol=1e-6)
    assert not answer(last, given)[..., :24].any()


@pytest.mark.parametrize(
    ("written", "name"),
    [("ResNet-20", "resnet20"), ("lenet_5", "lenet5"), ("WRN-16-4", "wrn-16-4"), ("VGG_Small", "vgg-small"),
     ("fast-64", "fast-64")],
)  # fmt: skip
def test_names_are_found_however_they_are_written(written, name):
    assert find(written) == name


@pytest.mark.parametrize(
    ("name", "hint"), [("resnet21", "resnet20"), ("vgg", "vgg-small"), ("wrn-28", "wrn-28-N"), ("xyz", "Known: lenet5")]
)
def test_unknown_names_are_refused_with_the_nearest(name, hint):
    with pytest.raises(RecipeError, match=f"no network is called '{name}'.*{hint}"):
        find(name)


def test_every_network_tells_its_source_and_has_a_name():
    assert all("arXiv" in net.source or "Proc" in net.source or "NIPS" in net.source for net in NETS.values())
    assert len(set(NAMES)) == len(NAMES) > len(NETS)


def test_whitened_answers_to_images_are_uncorrelated():
    smooth = images(400, (4, 4, 3)).repeat(3, axis=1).repeat(3, axis=2)
    model = made("fast-8", (12, 12, 3))
    whiten(model, smooth)
    layer = model.get_layer("whitening")
    patches = answer(keras.Model(model.input, layer.output), smooth)[:, ::2, ::2].reshape(-1, 24)
    half = patches[:, :12]
    np.testing.assert_allclose(patches[:, 12:], -half, atol=1e-4)
    spread = np.cov(half, rowvar=False)
    # Those axes along which smooth images vary have a variance of 1, none more, and no two go together.
    assert 0.95 < spread.diagonal().max() < 1.05
    np.testing.assert_allclose(spread - np.diag(spread.diagonal()), 0, atol=0.02)
    before = made("lenet5", (28, 28, 1)).get_weights()
    untouched = made("lenet5", (28, 28, 1))
    whiten(untouched, images(4, (28, 28, 1)))
    assert all((one == other).all() for one, other in zip(before, untouched.get_weights(), strict=True))


class TestMembers:
    COUNT, SIZE = 3, (28, 28, 1)

    def together(self):
        return made("lenet5", self.SIZE, members=self.COUNT)

    def alone(self, together, number):
        """A network of its own with the weights of one member."""
        model = made("lenet5", self.SIZE)
        for layer in model.layers:
            if layer.weights and layer.name != "head":
                layer.set_weights(together.get_layer(f"member_{number}_{layer.name}").get_weights())
        kernel, bias = together.get_layer("head").get_weights()
        model.get_layer("head").set_weights([kernel[84 * (number - 1) : 84 * number], bias])
        return model

    def test_the_answer_is_the_mean_of_the_members_logits(self):
        model, given = self.together(), images(5, self.SIZE)
        logits = answer(keras.Model(model.input, model.get_layer("head").output), given)
        each = [self.alone(model, number) for number in (1, 2, 3)]
        theirs = [answer(keras.Model(one.input, one.get_layer("head").output), given) for one in each]
        np.testing.assert_allclose(logits, np.mean(theirs, axis=0), rtol=1e-5, atol=1e-5)
        assert abs(theirs[0] - theirs[1]).max() > 0.1
        assert features(model).shape == (None, 3 * 84)

    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_each_learns_as_it_would_alone(self, smoothing):
        model, given = self.together(), images(16, self.SIZE)
        # Labels of mixed images, too.
        labels = np.random.default_rng(1).dirichlet(np.ones(10), 16).astype(np.float32)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
        singles = [self.alone(model, number) for number in (1, 2, 3)]
        fitted = [Members(model, 3), *(keras.Model(one.input, one.get_layer("head").output) for one in singles)]
        losses = []
        for each in fitted:
            each.compile(keras.optimizers.SGD(0.1), loss=loss)
            losses.append(each.fit(given, labels, batch_size=16, verbose=0).history["loss"][0])
        np.testing.assert_allclose(losses[0], np.mean(losses[1:]), rtol=1e-5)
        for number, single in enumerate(singles, start=1):
            for layer in single.layers:
                if layer.weights and layer.name != "head":
                    mine = model.get_layer(f"member_{number}_{layer.name}").get_weights()
                    np.testing.assert_allclose(mine[0], layer.get_weights()[0], atol=1e-6)
            kernel = model.get_layer("head").get_weights()[0][84 * (number - 1) : 84 * number]
            np.testing.assert_allclose(kernel, single.get_layer("head").get_weights()[0], atol=1e-6)
        # Nothing is left of it outside of training.
        plain = fitted[0].compute_loss(None, labels, fitted[0].predict_on_batch(given))
        assert fitted[0].losses == []
        assert float(plain) < losses[0]
