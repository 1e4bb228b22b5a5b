import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from kerastk.errors import RunError
from kerastk.evaluation.neighbours import Neighbours
from kerastk.training import probe


def features(rows, classes=3, seed=0, noise=1.0):
    centres = np.random.default_rng(100).normal(0, 1, (classes, 8))
    truth = np.arange(rows) % classes
    values = centres[truth] + np.random.default_rng(seed).normal(0, noise, (rows, 8))
    # Only the direction counts, not the length.
    return (values * np.linspace(1, 50, rows)[:, None]).astype(np.float32), truth.astype(np.int64)


def test_the_votes_are_scikit_learns():
    known, truth = features(60)
    asked, _ = features(40, seed=1)
    for count in (1, 5, 25):
        theirs = KNeighborsClassifier(count, weights="distance", metric="cosine").fit(known.astype(np.float64), truth)
        found = Neighbours(known, truth, count).probabilities(asked)
        assert (found.shape, found.dtype) == ((40, 3), np.float32)
        np.testing.assert_allclose(found, theirs.predict_proba(asked.astype(np.float64)), atol=1e-4)


def test_the_votes_by_hand():
    known = np.array([[1, 0], [0, 3], [-1, 0]], np.float32)
    truth = np.array([0, 1, 2])
    # Cosines 0.8 and 0.6, so distances 0.2 and 0.4: the nearer one has two votes of three.
    asked = np.array([[4, 3]], np.float32)
    np.testing.assert_allclose(Neighbours(known, truth, 2).probabilities(asked), [[2 / 3, 1 / 3, 0]], atol=1e-5)
    assert Neighbours(known, truth, 1).probabilities(asked).tolist() == [[1, 0, 0]]


def test_a_photo_that_is_there_decides_alone():
    known, truth = features(60, noise=5.0)
    found = Neighbours(known, truth, 15).probabilities(7 * known)
    np.testing.assert_allclose(found, np.eye(3)[truth], atol=1e-3)


def test_a_photo_gets_the_same_answer_whatever_is_asked_with_it():
    # Each photo is there twice, under two labels: nothing but rounding tells which of the two is nearer.
    known, truth = features(60)
    made = Neighbours(np.concatenate([known, known]), np.concatenate([truth, 2 - truth]), 3)
    together = made.probabilities(known[:32])
    alone = np.concatenate([made.probabilities(each[None]) for each in known[:32]])
    np.testing.assert_allclose(together, alone, atol=1e-3)


def test_a_saved_file_gives_the_same_and_holds_plain_arrays(tmp_path):
    known, truth = features(60)
    before = Neighbours(known, truth, 5)
    before.save(tmp_path / "neighbours.npz")
    after = Neighbours.load(tmp_path / "neighbours.npz")
    asked, _ = features(40, seed=1)
    np.testing.assert_allclose(before.probabilities(asked), after.probabilities(asked), atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["neighbours.npz"]
    with np.load(tmp_path / "neighbours.npz", allow_pickle=False) as file:
        assert np.array_equal(file["features"], known)
        assert np.array_equal(file["truth"], truth)
        assert int(file["count"]) == 5


class Evil:
    """Writes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.write_text, ("unpickled",)


def test_a_damaged_or_pickled_file_is_refused_in_one_line(tmp_path):
    known, truth = features(60)
    path, evil = tmp_path / "neighbours.npz", tmp_path / "evil"
    Neighbours(known, truth, 5).save(path)
    good = path.read_bytes()
    half = len(good) // 2
    contents = [
        b"",
        b"no archive",
        good[:half],
        good[:half] + bytes(255 - byte for byte in good[half : half + 50]) + good[half + 50 :],
        {"features": known, "truth": np.array([Evil(evil)] * 60, object), "count": 5},
        {"features": known, "count": 5},
        {"features": known, "truth": truth, "count": "five"},
        {"features": known, "truth": truth[:-1], "count": 5},
        {"features": known[:, 0], "truth": truth, "count": 5},
        {"features": known, "truth": truth.reshape(1, -1), "count": 5},
    ]
    for content in contents:
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.savez(path, **content)
        with pytest.raises(RunError, match=r"^[^\n]*neighbours\.npz[^\n]*$"):
            Neighbours.load(path)
    assert not evil.exists()
    with pytest.raises(RunError, match=r"cannot read .*none.npz: .*No such file"):
        Neighbours.load(tmp_path / "none.npz")


def test_the_number_of_neighbours_is_that_of_the_fewest_wrong_answers():
    known, truth = features(90, noise=2.0)
    asked, their_truth = features(90, seed=1, noise=2.0)

    def wrong(count):
        theirs = KNeighborsClassifier(count, weights="distance", metric="cosine").fit(known, truth)
        return np.mean(theirs.predict(asked) != their_truth)

    shares = [wrong(count) for count in probe.NEIGHBOURS]
    # The first and simplest would not do.
    assert min(shares) < shares[0]
    found = probe.neighbours(known, truth, asked, their_truth)
    assert found.count == probe.NEIGHBOURS[int(np.argmin(shares))]


def test_there_are_never_more_neighbours_than_photos():
    known, truth = features(4, classes=2)
    found = probe.neighbours(known, truth, known, truth)
    assert found.count <= 4
    assert found.probabilities(known).shape == (4, 2)
