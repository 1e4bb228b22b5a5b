import numpy as np
import pytest

from kerastk.datasets import damage


def images(count=64, side=16):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 1), np.uint8)


def rows(count=4000):
    random = np.random.default_rng(0)
    values = (random.normal(size=(count, 3)) * [1, 10, 0.1] + [5, -50, 0]).astype(np.float32)
    return values, np.stack([values.std(axis=0), values.mean(axis=0)])


def drawn(seed=1):
    return np.random.default_rng(seed)


def test_gaussian_noise_has_the_deviation_that_is_asked_for():
    grey = np.full((200, 16, 16, 1), 128, np.uint8)
    found = damage.noisy("gaussian", 0.1)(grey, drawn())
    assert found["target"] is grey
    assert found["item"].dtype == np.uint8
    assert (found["item"] / 255 - 128 / 255).std() == pytest.approx(0.1, rel=0.02)
    strong = damage.noisy("gaussian", 0.5)(grey, drawn())["item"]
    # What leaves the range is clipped, not wrapped around.
    assert (strong == 0).mean() == pytest.approx((strong == 255).mean(), abs=0.02)
    assert (strong == 0).mean() == pytest.approx(0.158, abs=0.01)


def test_gaussian_noise_of_rows_goes_by_each_column():
    values, spread = rows()
    found = damage.noisy("gaussian", 0.5, spread)(values, drawn())["item"]
    assert found.dtype == np.float32
    np.testing.assert_allclose((found - values).std(axis=0), 0.5 * spread[0], rtol=0.05)


@pytest.mark.parametrize("kind", ["masking", "salt-pepper"])
def test_a_share_of_the_values_is_hit_and_no_other(kind):
    given = images()
    found = damage.noisy(kind, 0.3)(given, drawn())["item"]
    hit = found != given
    assert hit.mean() == pytest.approx(0.3, abs=0.02)
    assert set(np.unique(found[hit])) == ({0} if kind == "masking" else {0, 255})
    if kind == "salt-pepper":
        assert (found[hit] == 255).mean() == pytest.approx(0.5, abs=0.03)


def test_values_of_rows_are_masked_by_their_means_and_peppered_by_extremes():
    values, spread = rows()
    masked = damage.noisy("masking", 0.2, spread)(values, drawn())["item"]
    hit = masked != values
    assert hit.mean() == pytest.approx(0.2, abs=0.02)
    np.testing.assert_allclose(masked[:, 1][hit[:, 1]], spread[1, 1], rtol=1e-5)
    peppered = damage.noisy("salt-pepper", 0.2, spread)(values, drawn())["item"]
    changed = np.unique(peppered[:, 0][peppered[:, 0] != values[:, 0]])
    np.testing.assert_allclose(changed, spread[1, 0] + np.array([-3, 3]) * spread[0, 0], rtol=1e-5)


def test_patches_are_hidden_whole_and_as_many_in_each_image():
    given = images(20, 10)
    found = damage.patched(0.5, 4)(given, drawn())
    weight = found["weight"]
    assert weight.shape == (20, 10, 10, 1)
    assert weight.dtype == np.float32
    hidden = weight > 0
    assert (found["item"][hidden] == 128).all()
    np.testing.assert_array_equal(found["item"][~hidden], given[~hidden])
    # 9 patches, of which those at the border are cut: 4, 4 and 2 pixels.
    blocks = [hidden[:, top : top + 4, left : left + 4].reshape(20, -1) for top in (0, 4, 8) for left in (0, 4, 8)]
    assert all((block.all(axis=1) | ~block.any(axis=1)).all() for block in blocks)
    assert {int(each) for each in sum(block[:, 0].astype(int) for block in blocks)} == {4}
    # Each image counts as much as any other.
    np.testing.assert_allclose(weight.mean(axis=(1, 2, 3)), 1, rtol=1e-5)


def test_a_pixel_is_on_as_often_as_it_is_grey():
    grey = np.full((300, 16, 16, 1), 51, np.uint8)
    found = damage.binarised(grey, drawn())
    assert set(np.unique(found["item"])) == {0, 255}
    assert (found["item"] == 255).mean() == pytest.approx(0.2, abs=0.01)
    assert found["target"] is found["item"]
    ends = damage.binarised(np.array([0, 255], np.uint8).reshape(1, 1, 2, 1), drawn())["item"]
    assert ends.ravel().tolist() == [0, 255]


def test_draws_come_with_the_items_and_follow_from_the_generator():
    vary = damage.reconstructing(damage.noisy("gaussian", 0.1), damage.uniform_draws(2, 5))
    given, labels = images(7), np.zeros((7, 1))
    (inputs, nothing), (again, _), (other, _) = (
        vary(given, labels, drawn()), vary(given, labels, drawn()), vary(given, labels, drawn(2))
    )  # fmt: skip
    assert inputs["draws"].shape == (7, 2, 5)
    assert ((inputs["draws"] >= 0) & (inputs["draws"] < 1)).all()
    assert nothing.shape == (7,)
    for name, each in inputs.items():
        np.testing.assert_array_equal(each, again[name])
    assert not np.array_equal(inputs["draws"], other["draws"])
    assert not np.array_equal(inputs["item"], other["item"])


def test_without_damage_items_are_their_own_targets():
    given = images(3)
    inputs, _ = damage.reconstructing()(given, np.zeros((3, 1)), drawn())
    assert inputs.keys() == {"item", "target"}
    assert inputs["item"] is given
    normal = damage.normal_draws(1000)(5, drawn())
    assert normal.shape == (5, 1000)
    assert normal.std() == pytest.approx(1, abs=0.05)
