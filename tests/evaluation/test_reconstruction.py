import numpy as np
import pytest
from scipy.stats import betabinom

from kerastk.evaluation import components, reconstruction
from kerastk.networks.autoencoder import Standard


class Halved:
    """Stands for a model that gives back a half of each value."""

    def __init__(self, scale=1 / 255):
        self.scale = scale

    def predict_on_batch(self, items):
        codes = items.reshape(len(items), -1)[:, :2].astype("float32")
        return {"code": codes, "reconstruction": items * self.scale / 2}


def test_errors_are_summed_squares_of_pixels_from_0_to_1():
    items = np.array([0, 255, 51], np.uint8).reshape(3, 1, 1, 1) * np.ones((1, 4, 5, 1), np.uint8)
    found = reconstruction.answers(Halved(), [items[:2], items[2:]], None)
    np.testing.assert_allclose(found.errors, [0, 20 * 0.25, 20 * 0.01], rtol=1e-6)
    assert found.codes.shape == (3, 2)


def test_errors_of_rows_are_in_standard_deviations():
    standard = Standard(np.array([1.0, 2.0]), np.array([2.0, 10.0]))
    rows = np.array([[4.0, 20.0]], np.float32)
    found = reconstruction.answers(Halved(1.0), [rows], standard)
    np.testing.assert_allclose(found.errors, [(2 / 2) ** 2 + (10 / 10) ** 2])


def test_the_figures_have_the_mean_and_its_interval():
    errors = np.random.default_rng(0).gamma(2, 3, 400)
    figures = reconstruction.figures(errors, 100)
    assert figures["error"] == pytest.approx(errors.mean())
    low, high = figures["error_95"]
    assert high - low == pytest.approx(2 * 1.96 * errors.std(ddof=1) / 20)
    assert figures["psnr"] == pytest.approx(-10 * np.log10(errors.mean() / 100))
    assert reconstruction.figures(np.array([2.0]), 4)["error_95"] == [2.0, 2.0]


def test_of_fresh_normal_items_as_many_are_called_anomalies_as_stated():
    """On average over thresholds, and within the interval that is told in 95 of 100 cases."""
    random, rates, inside = np.random.default_rng(0), [], 0
    low, high = reconstruction.false_alarm_interval(500, 300, 0.05)
    for _ in range(1500):
        limit = reconstruction.threshold(random.normal(size=300), 0.05)
        rate = (random.normal(size=500) > limit).mean()
        rates.append(rate)
        inside += low <= rate <= high
    assert np.mean(rates) == pytest.approx(15 / 301, abs=0.0015)
    assert 0.93 < inside / 1500 < 0.98


def test_few_items_have_their_largest_score_as_threshold():
    assert reconstruction.threshold(np.array([3.0, 1.0, 2.0]), 0.01) == 3.0
    assert reconstruction.least_false_alarms(3) == 0.25
    low, high = reconstruction.false_alarm_interval(10, 3, 0.01)
    assert (low, high) == (0.0, betabinom(10, 1, 3).ppf(0.975) / 10)


def test_detection_counts_both_sorts():
    scores = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    anomalous = np.array([False, False, True, False, True])
    found = reconstruction.detection(scores, anomalous, 3.5)
    assert found["false_alarms"] == pytest.approx(1 / 3)
    assert found["found"] == 0.5
    assert found["auroc"] == pytest.approx(5 / 6)
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    none = reconstruction.detection(scores, np.zeros(5, bool), 3.5)
    assert none == {"normal": 5, "anomalies": 0, "false_alarms": 0.4}


def test_a_checkerboard_stands_out_and_smooth_noise_does_not():
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(0)
    smooth = np.stack([gaussian_filter(random.random((32, 32)), 1.0) for _ in range(40)])[..., None]
    plain = reconstruction.checkerboard(smooth)
    board = smooth.copy()
    board[:, ::2, ::2] += 0.05
    assert reconstruction.checkerboard(board) > plain + 10
    assert reconstruction.checkerboard(random.random((60, 32, 32, 3))) == pytest.approx(0, abs=1)


def test_the_prior_is_met_by_what_follows_it():
    random = np.random.default_rng(0)
    variance = np.full((5000, 3), [0.25, 0.25, 1.0])
    means = random.normal(size=(5000, 3)) * np.sqrt(1 - variance)
    found = reconstruction.describe_prior(means, np.log(variance))
    assert (found["active"], found["numbers"]) == (2, 3)
    assert found["mean"] == pytest.approx(0, abs=0.03)
    assert found["deviation"] == pytest.approx(1, abs=0.02)


def test_principal_components_are_the_best_linear_code():
    random = np.random.default_rng(0)
    values = (random.normal(size=(300, 3)) @ random.normal(size=(3, 12)) + 5).astype(np.float32)
    exact = components.principal(values, 3)
    np.testing.assert_allclose(exact.reconstruct(values), values, atol=1e-3)
    less = components.principal(values, 2)
    strength = np.linalg.svd(values - values.mean(axis=0), compute_uv=False)
    assert np.square(less.reconstruct(values) - values).sum() == pytest.approx(strength[2] ** 2, rel=1e-3)
    assert (less.items, less.size) == (300, 2)


def test_of_too_many_items_a_part_is_drawn(monkeypatch):
    monkeypatch.setattr(components, "MOST_VALUES", 500)
    values = np.random.default_rng(0).random((200, 10), np.float32)
    assert components.principal(values, 4).items == 50


def test_logistic_components_fit_probabilities_better_than_plain_ones():
    """Binary patterns from log-odds of low rank: what the components of log-odds are for."""
    random = np.random.default_rng(0)
    odds = 3 * random.normal(size=(800, 2)) @ random.normal(size=(2, 40))
    values = (random.random((800, 40)) < 1 / (1 + np.exp(-odds))).astype(np.float32)
    train, test = values[:600], values[600:]
    plain, found = components.principal(train, 2), components.logistic(train, 2)
    errors = {name: np.square(each.reconstruct(test) - test).sum() for name, each in (("plain", plain), ("log", found))}
    assert errors["log"] < 0.9 * errors["plain"]
    made = found.reconstruct(test)
    assert ((made > 0) & (made < 1)).all()
