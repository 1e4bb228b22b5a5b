import numpy as np
import pytest

from kerastk.evaluation.metrics import (
    before_calibration,
    classification,
    cross_entropy,
    equal_classes,
    expected_calibration_error,
    interval,
    log_loss,
    mcnemar,
    reliability,
    temperature,
    uncalibrated,
)


def test_interval_against_published_values():
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
    assert interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    truth = np.array([0, 1, 0, 1])
    # Bins: 0.9 twice (half right), 0.6 once (right), 0.8 once (right).
    assert expected_calibration_error(truth, probabilities) == pytest.approx(0.5 * 0.4 + 0.25 * 0.4 + 0.25 * 0.2)
    certain = np.eye(2)[truth]
    assert expected_calibration_error(truth, certain) == 0


def test_figures_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
    figures = classification(np.array([0, 1, 1, 2]), probabilities, ["a", "b", "never predicted <script>"])
    assert figures["accuracy"] == 0.75
    assert figures["accuracy_95"] == list(interval(3, 4))
    assert figures["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert figures["classes"]["b"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "photos": 2}
    assert figures["majority_share"] == 0.5
    assert figures["cross_entropy"] == pytest.approx(-np.log([0.7, 0.8, 0.3, 0.6]).mean())
    assert "top5_accuracy" not in figures


def test_top_5_beyond_five_classes():
    probabilities = np.tile([0.3, 0.25, 0.2, 0.1, 0.08, 0.07], (2, 1))
    figures = classification(np.array([4, 5]), probabilities, list("abcdef"))
    assert (figures["accuracy"], figures["top5_accuracy"]) == (0.0, 0.5)


def test_a_class_that_is_never_seen_does_not_break_the_figures():
    figures = classification(np.array([0, 0]), np.array([[1.0, 0.0], [1.0, 0.0]]), ["a", "b"])
    assert figures["classes"]["b"]["photos"] == 0
    assert figures["macro_f1"] == 1.0


def drawn(scale, count=4000, classes=4):
    """Logits whose softmax is right on average, times `scale`, and classes drawn from them."""
    random = np.random.default_rng(5)
    logits = random.normal(size=(count, classes)) * 2
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([random.choice(classes, p=row) for row in shares])
    return logits * scale, truth


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_the_temperature_undoes_a_wrong_scale_of_the_logits(scale):
    logits, truth = drawn(scale)
    found = temperature(logits, truth)
    assert found == pytest.approx(scale, rel=0.1)
    assert cross_entropy(logits / found, truth) <= cross_entropy(logits, truth) + 1e-6


def test_a_few_right_answers_do_not_ask_for_certainty():
    logits, truth = np.eye(3)[[0, 1, 2, 0, 1, 2]] * 2, np.array([0, 1, 2, 0, 1, 2])
    sure = np.exp(logits / temperature(logits, truth))
    share = (sure / sure.sum(axis=1, keepdims=True)).max(axis=1)
    # 1 - 2 of (6 + 3), as Platt's scaling has it.
    np.testing.assert_allclose(share, 7 / 9, atol=0.02)


def test_logits_that_are_no_numbers_have_no_temperature():
    assert temperature(np.array([[np.nan, 0.0], [1.0, 2.0]]), np.array([0, 1])) == 1.0


def test_both_cross_entropies_agree():
    logits, truth = drawn(1.0, count=50)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert cross_entropy(logits, truth) == pytest.approx(log_loss(shares, truth))


def test_with_equal_classes_a_photo_of_a_small_class_counts_for_many():
    truth = np.array([0, 0, 0, 2])
    weights = equal_classes(truth)
    np.testing.assert_allclose(weights, [2 / 3, 2 / 3, 2 / 3, 2])
    logits = np.array([[2.0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]])
    each = [cross_entropy(logits[[number]], truth[[number]]) for number in range(4)]
    assert cross_entropy(logits, truth, weights) == pytest.approx((np.mean(each[:3]) + each[3]) / 2)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert log_loss(probabilities, truth, weights) == pytest.approx(cross_entropy(logits, truth, weights))
    # As if the photos of the small class were there three times.
    many = np.tile(truth, 100)
    signal = np.eye(3)[many] * np.where(many == 2, 1.0, 4.0)[:, None]
    noisy = np.random.default_rng(0).normal(size=(400, 3)) * 2 + signal
    repeated = np.concatenate([np.arange(400), *[np.flatnonzero(many == 2)] * 2])
    found = temperature(noisy, many, equal_classes(many))
    assert found == pytest.approx(temperature(noisy[repeated], many[repeated]), rel=0.02)
    assert found != pytest.approx(temperature(noisy, many), rel=0.02)


def test_what_calibration_changed_can_be_undone():
    logits, truth = drawn(2.0, count=300)
    raw = softmax(logits)
    found = temperature(logits, truth)
    calibrated = softmax(logits / found).astype(np.float32)
    np.testing.assert_allclose(uncalibrated(calibrated, found), raw, atol=1e-5)
    figures = before_calibration(truth, calibrated, found)
    assert figures["expected_calibration_error"] == pytest.approx(expected_calibration_error(truth, raw), abs=1e-3)
    assert figures["cross_entropy"] == pytest.approx(cross_entropy(logits, truth), abs=1e-4)
    # What was so sure that the others vanished stays so.
    assert uncalibrated(np.array([[1.0, 0.0]], np.float32), 2.5).tolist() == [[1.0, 0.0]]


def softmax(logits):
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def test_the_bins_of_reliability_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.92, 0.08], [0.55, 0.45], [0.0, 1.0]])
    rows = reliability(np.array([0, 1, 0, 1]), probabilities, bins=10)
    assert [(row["bin"], row["photos"], row["accuracy"]) for row in rows] == [(5, 1, 1.0), (9, 3, 2 / 3)]
    assert rows[1]["confidence"] == pytest.approx((0.9 + 0.92 + 1) / 3)


def test_mcnemar_against_a_published_example():
    # 4 and 16 of the pairs differ; exact two-sided, as R's exact2x2::mcnemar.exact has it: twice the binomial tail.
    first, second = [True] * 4 + [False] * 16 + [True] * 30, [False] * 4 + [True] * 16 + [True] * 30
    assert mcnemar(first, second) == (4, 16, pytest.approx(0.011818, abs=1e-6))
    assert mcnemar([True, False], [True, False]) == (0, 0, 1.0)
