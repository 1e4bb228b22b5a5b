import os

import numpy as np
import pytest
from sklearn.decomposition import PCA

from kerastk import shipped
from kerastk.datasets import curves as module
from kerastk.datasets.arrays import open_arrays
from kerastk.datasets.curves import PEN, SIDE, SPAN, TEST, TRAINING, curves, points
from kerastk.errors import DataError
from kerastk.storage import cache_folder


def test_an_image_follows_from_seed_and_number_alone():
    some = curves(1500, first=100)
    np.testing.assert_array_equal(some, curves(1500, first=100))
    np.testing.assert_array_equal(some[1200:1203], curves(3, first=1300))
    np.testing.assert_array_equal(points(2, first=7), points(9)[7:])
    assert not np.array_equal(points(4), points(4, seed=1))
    assert len(np.unique(some.reshape(len(some), -1), axis=0)) == len(some)
    assert curves(0).shape == (0, SIDE, SIDE)


def test_points_are_even_in_the_middle_square():
    found = points(4000).reshape(-1, 2)
    edge = (SIDE - 1 - SPAN) / 2
    assert found.min() > edge - 1e-9
    assert found.max() < SIDE - 1 - edge + 1e-9
    np.testing.assert_allclose(found.mean(axis=0), (SIDE - 1) / 2, atol=0.2)
    np.testing.assert_allclose(found.std(axis=0), SPAN / np.sqrt(12), rtol=0.02)


def test_curves_are_thin_white_strokes_on_black_through_their_points():
    images, ends = curves(1000), points(1000)
    assert (images.dtype, images.shape) == (np.uint8, (1000, SIDE, SIDE))
    # Overshooting the points by an eighth at most, they never reach the border.
    assert not images[:, [0, -1]].any()
    assert not images[:, :, [0, -1]].any()
    assert np.median(images.max(axis=(1, 2))) > 220
    # As long as the way from point to point, and not much wider than the pen.
    ways = np.linalg.norm(np.diff(ends, axis=1), axis=-1).sum(axis=1)
    widths = images.sum(axis=(1, 2)) / 255 / np.maximum(ways, 1)
    assert 1 < np.median(widths) / (PEN * np.sqrt(2 * np.pi)) < 1.3
    column, row = np.rint(ends[:, 1]).astype(int).T
    near = [images[number, row[number] - 1 : row[number] + 2, column[number] - 1 : column[number] + 2].max()
            for number in range(len(images))]  # fmt: skip
    assert np.quantile(near, 0.05) > 80


def test_curves_change_smoothly_with_their_points():
    ends = points(200)
    begin = module._drawn(ends).astype(np.float64)
    changes = [np.abs(module._drawn(ends + step) - begin).sum(axis=(1, 2)).mean() for step in (0.01, 0.1, 0.3)]
    assert 0 < changes[0] < changes[1] / 5 < changes[2] / 10
    # A step to the side by a whole pixel is a step of the image.
    np.testing.assert_array_equal(module._drawn(ends + np.array([1, 0]))[:, :, 1:], module._drawn(ends)[:, :, :-1])


def test_eighteen_components_miss_what_the_paper_reports():
    train, test = (each.reshape(len(each), -1) / np.float32(255) for each in (
        curves(TRAINING), curves(TEST, first=TRAINING)))  # fmt: skip
    found = PCA(18, svd_solver="covariance_eigh").fit(train)
    error = np.square(test - found.inverse_transform(found.transform(test)), dtype=np.float64).sum(axis=1).mean()
    assert error == pytest.approx(5.90, abs=0.05)


def test_they_are_made_once_and_read_as_arrays(monkeypatch):
    monkeypatch.setattr(module, "TRAINING", 30)
    monkeypatch.setattr(module, "TEST", 20)
    path = shipped.data("kerastk:curves")
    assert path == str(cache_folder() / "made" / module.VERSION / "curves.npz")
    assert os.listdir(os.path.dirname(path)) == ["curves.npz"]
    arrays = open_arrays(path)
    assert (arrays.name, arrays.values.shape, arrays.labels) == ("curves", (50, SIDE, SIDE, 1), None)
    assert arrays.splits == ["train"] * 30 + ["test"] * 20
    np.testing.assert_array_equal(arrays.values[..., 0], curves(50))
    before = os.stat(path).st_mtime_ns
    assert shipped.data("kerastk:curves") == path
    assert os.stat(path).st_mtime_ns == before
    # Another version is another file.
    monkeypatch.setattr(module, "VERSION", "other")
    assert shipped.data("kerastk:curves") != path


def test_names_of_no_data_are_refused_with_those_that_there_are():
    assert shipped.data("curves") == "curves"
    with pytest.raises(DataError, match=r"^no data 'curve' ships with kerastk; names does, and curves is made"):
        shipped.data("kerastk:curve")
