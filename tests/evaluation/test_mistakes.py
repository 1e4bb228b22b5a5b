import base64
import csv

import numpy as np
import pytest

from kerastk.datasets.images import whole
from kerastk.evaluation.mistakes import suspects, thresholds, worst

TRUTH = np.array([0, 0, 0, 1, 1, 1])
SCORES = np.array([[0.9, 0.1], [0.7, 0.3], [0.05, 0.95], [0.2, 0.8], [0.6, 0.4], [0.1, 0.9]])


def test_the_worst_mistakes_come_first():
    assert worst(TRUTH, SCORES).tolist() == [2, 4]


def test_thresholds_are_the_mean_confidence_in_a_class_on_its_own_photos():
    assert thresholds(TRUTH, SCORES).tolist() == pytest.approx([(0.9 + 0.7 + 0.05) / 3, (0.8 + 0.4 + 0.9) / 3])
    # A class without photos is never sure enough.
    assert thresholds(TRUTH, np.column_stack([SCORES, np.zeros(6)]))[2] == 1


def test_a_label_is_suspected_where_the_model_is_as_sure_of_another_as_it_is_of_that_classs_own():
    sure = np.array([0.7, 0.7])
    # Photo 4 is answered otherwise, but not with confidence.
    assert suspects(TRUTH, SCORES, sure).tolist() == [2]
    assert suspects(TRUTH, SCORES, np.array([0.6, 0.7])).tolist() == [2, 4]


def test_a_wrong_label_that_was_planted_is_found():
    random = np.random.default_rng(0)
    truth = random.integers(0, 5, 500)
    scores = random.dirichlet(np.ones(5), 500)
    scores[np.arange(500), truth] += 4
    scores /= scores.sum(axis=1, keepdims=True)
    labels = truth.copy()
    labels[[3, 70, 411]] = (truth[[3, 70, 411]] + 1) % 5
    found = suspects(labels, scores, thresholds(labels, scores))
    assert set(found[:3].tolist()) <= {3, 70, 411}
    assert len(found) <= 3


def test_a_run_keeps_its_mistakes_with_pictures_and_heat(small_run):
    rows = list(csv.DictReader(open(small_run.predictions_csv)))
    wrong = {row["path"]: row for row in rows if row["truth"] != row["prediction"]}
    noted = small_run.mistakes
    assert (noted["split"], noted["explained"]) == ("test", True)
    assert noted["counts"]["mistakes"] == len(wrong)
    photos = [noted["photos"][number] for number in noted["mistakes"]]
    assert {photo["path"] for photo in photos} == set(wrong)
    of_truth = [photo["probability_of_truth"] for photo in photos]
    assert of_truth == sorted(of_truth)
    for photo in photos:
        row = wrong[photo["path"]]
        assert (photo["truth"], photo["answer"]) == (row["truth"], row["prediction"])
        assert photo["probability"] == pytest.approx(float(row["probability"]), abs=1e-6)
        assert whole(base64.b64decode(photo["picture"])).shape == (32, 32, 3)
        assert np.array(photo["heat"]).ndim == 2
