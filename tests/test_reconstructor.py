import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

import kerastk
from kerastk.answers import score_table
from kerastk.embedding import encode
from kerastk.errors import DataError, PhotoError, RecipeError, RunError
from kerastk.evaluation.evaluate import evaluate
from kerastk.reconstructor import Score, Scored
from kerastk.run import Run


@pytest.fixture(scope="module")
def images(image_code_run):
    return kerastk.load(image_code_run.path)


@pytest.fixture(scope="module")
def rows(row_code_run):
    return kerastk.load(row_code_run.path)


@pytest.fixture(scope="module")
def numbers(wines):
    """The wines as an array."""
    with open(wines, newline="") as file:
        return np.array([line[:-1] for line in list(csv.reader(file))[1:]], np.float32)


def judged(run):
    """predictions.csv: paths, scores, anomalies."""
    with open(run.predictions_csv, newline="") as file:
        found = list(csv.DictReader(file))
    return [row["path"] for row in found], [float(row["score"]) for row in found], [row["anomaly"] for row in found]


def test_a_run_is_loaded_as_what_it_is(images, rows, image_code_run, row_code_run):
    for found, run, shape in ((images, image_code_run, (12, 12, 3)), (rows, row_code_run, (13,))):
        assert isinstance(found, kerastk.Reconstructor)
        assert (found.shape, found.latent, found.variational) == (shape, 3, found is images)
        anomaly = run.metrics["anomaly"]
        assert (found.threshold, found.false_alarms) == (anomaly["threshold"], anomaly["false_alarms"])
        assert found.false_alarms == 0.1


def test_photos_are_scored_as_the_run_was_judged(images, image_code_run, digits):
    paths, scores, anomalies = judged(image_code_run)
    found = images.score([digits / path for path in paths])
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, scores, rtol=1e-5)
    assert [str(int(each)) for each in images.anomalous([digits / path for path in paths])] == anomalies
    assert set(anomalies) == {"0", "1"}
    called = images([digits / path for path in paths])
    assert called == [Score(error, anomaly == "1") for error, anomaly in zip(found, anomalies, strict=True)]
    assert all(type(each.anomaly) is bool and type(each.error) is float for each in called)


def test_rows_are_scored_as_the_run_was_judged(rows, row_code_run, wines, numbers):
    paths, scores, anomalies = judged(row_code_run)
    chosen = [int(path.removeprefix("wines.csv#")) for path in paths]
    for given in (numbers, wines, str(wines), list(numbers)):
        found = rows.score(given)
        assert found.shape == (178,)
        np.testing.assert_allclose(found[chosen], scores, rtol=1e-5)
        assert [str(int(each)) for each in rows.anomalous(given)[chosen]] == anomalies


def test_an_error_is_the_sum_of_squared_differences(images, rows, digits, numbers, row_code_run):
    path = digits / "2" / "3.png"
    with Image.open(path) as photo:
        pixels = np.asarray(photo.convert("RGB").resize((12, 12), Image.Resampling.BILINEAR), np.float64) / 255
    made = images.reconstruct(path)
    assert (made.shape, made.dtype) == ((12, 12, 3), np.float32)
    assert 0 <= made.min() <= made.max() <= 1
    assert images.score(path) == pytest.approx(np.square(pixels - made).sum(), rel=1e-5)
    deviation = np.array(row_code_run.labels["deviation"])
    made = rows.reconstruct(numbers)
    # In the units of the table: proline has hundreds, hue has about one.
    assert made[:, -1].mean() > 100 * made[:, -3].mean() > 50
    expected = np.square((numbers.astype(np.float64) - made) / deviation).sum(axis=1)
    np.testing.assert_allclose(rows.score(numbers), expected, rtol=1e-6)


def test_one_item_gives_one_answer_and_several_an_array(images, rows, digits, numbers):
    photo = digits / "1" / "0.png"
    for found, one, shape in ((images, photo, (12, 12, 3)), (rows, numbers[0], (13,))):
        assert found.encode(one).shape == (3,)
        assert found.encode([one]).shape == (1, 3)
        assert found.encode([one, one]).dtype == np.float32
        assert found.reconstruct(one).shape == shape == found.decode(found.encode(one)).shape
        assert found.reconstruct([one] * 2).shape == (2, *shape) == found.decode(found.encode([one] * 2)).shape
        assert np.ndim(found.score(one)) == np.ndim(found.anomalous(one)) == 0
        error, anomaly = found(one)
        assert found([one]) == [(error, anomaly)]
        assert (error, anomaly) == (found.score(one), error > found.threshold)
        assert (found.encode([]).shape, found.reconstruct([]).shape, found.score([]).shape) == (
            (0, 3),
            (0, *shape),
            (0,),
        )
        assert found([]) == []
        assert found.decode(np.zeros((0, 3))).shape == (0, *shape)


def test_a_photo_in_any_form_gives_the_same_answer(images, digits):
    path = digits / "1" / "0.png"
    expected = images(path)
    with Image.open(path) as photo:
        pixels = np.asarray(photo)
        for form in (str(path), path.read_bytes(), photo.copy(), pixels, np.asarray(photo.convert("RGB"))):
            assert images(form) == expected
    square = images.run.labels["image_size"]
    seen = np.asarray(Image.fromarray(pixels).convert("RGB").resize((square, square), Image.Resampling.BILINEAR))
    assert images(seen) == images([seen])[0] == images(seen[None])[0] == expected


def test_an_answer_does_not_hang_on_the_others(images, rows, digits, numbers):
    photos = [digits / "3" / f"{number}.png" for number in range(5)]
    together, alone = images.score(photos), [images.score(photo) for photo in photos]
    assert together.tolist() == alone
    many = np.tile(numbers, (3, 1))
    assert len(many) > 2 * rows.batch_size
    assert np.array_equal(rows.encode(many), np.tile(rows.encode(numbers), (3, 1)))
    assert np.array_equal(rows.score(many)[::-1], rows.score(many[::-1]))


def test_a_code_is_all_that_the_decoder_needs(images, rows, digits, numbers):
    photos = [digits / "0" / f"{number}.png" for number in range(4)]
    for found, items in ((images, photos), (rows, numbers[:9])):
        codes = found.encode(items)
        np.testing.assert_allclose(found.decode(codes), found.reconstruct(items), rtol=1e-5, atol=1e-6)
        assert np.array_equal(found.decode(codes.tolist()), found.decode(codes))


@pytest.mark.parametrize(
    "codes", [0, "abc", [1, 2], [[1, 2]], [[1], [2, 3]], np.full(3, np.nan), [[1e39, 0, 0]], np.zeros((1, 1, 3)), None]
)
def test_what_are_no_codes_is_refused(codes, images):
    with pytest.raises(DataError, match=r"^codes must be [^\n]*$"):
        images.decode(codes)


def test_samples_follow_from_the_seed(images, rows):
    found = images.sample(6)
    assert (found.shape, found.dtype) == ((6, 12, 12, 3), np.float32)
    assert np.array_equal(found, images.sample(6, seed=0))
    assert not np.array_equal(found, images.sample(6, seed=1))
    assert np.array_equal(images.sample(200)[:6], images.sample(200, 0)[:6])
    assert images.sample(0).shape == (0, 12, 12, 3)
    codes = np.random.default_rng(0).standard_normal((6, 3), np.float32)
    assert np.array_equal(found, images.decode(codes))
    with pytest.raises(RunError, match="is not variational: its codes follow no distribution"):
        rows.sample(1)


@pytest.mark.parametrize("given", [{"count": -1}, {"count": 2.5}, {"count": True}, {"count": 10**9}, {"seed": -1}])
def test_samples_without_end_or_number_are_refused(given, images):
    with pytest.raises(RecipeError, match=rf"^{next(iter(given))} must be [^\n]*$"):
        images.sample(**{"count": 1, **given})


def test_what_is_too_far_for_a_number_is_an_anomaly(rows, tmp_path):
    assert rows(np.full(13, 3e38)) == (np.inf, True)
    np.save(tmp_path / "far.npy", np.full((1, 13), 3e38))
    with score_table(tmp_path / "x.jsonl") as put:
        for scored in rows.stream([tmp_path / "far.npy"]):
            put(scored)
    row = json.loads((tmp_path / "x.jsonl").read_text(), parse_constant=lambda name: pytest.fail(f"JSON has no {name}"))
    assert (row["score"], row["anomaly"]) == (None, True)
    with pytest.raises(DataError, match=r"far.npy#0: the network's answer is no number"):
        evaluate(rows, tmp_path / "far.npy")


def test_the_last_model_answers_where_it_was_kept(images, image_code_run, row_code_run, digits, tmp_path):
    last = kerastk.load(image_code_run, last=True)
    assert last.threshold == images.threshold
    run = Run(shutil.copytree(image_code_run.path, tmp_path / "run"))
    shutil.copy(run.last_keras, run.model_keras)
    photos = [digits / "3" / f"{number}.png" for number in range(5)]
    assert np.array_equal(last.score(photos), kerastk.load(run).score(photos))
    with pytest.raises(RunError, match="has the best model alone; train with --keep-last"):
        kerastk.load(row_code_run, last=True)
    with pytest.raises(RunError, match="is an autoencoder, which is not calibrated: there is nothing to undo"):
        kerastk.load(row_code_run, calibrated=False)


def test_a_stream_has_every_item_in_order(images, digits, tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    for number in range(20):
        shutil.copy(digits / "2" / f"{number}.png", folder)
    (folder / "5.png").write_bytes(b"")
    np.save(tmp_path / "x.npy", np.zeros((2, 12, 12, 3), np.uint8))
    found = list(images.stream([folder, tmp_path / "x.npy"], threads=2))
    assert [each.path for each in found] == [
        *(f"{folder}/{number}.png" for number in range(20)), *(f"{tmp_path}/x.npy#{row}" for row in range(2))
    ]  # fmt: skip
    assert found[5] == Scored(f"{folder}/5.png", None, "the file is empty")
    for each in [*found[:5], *found[6:20]]:
        assert each.score == images(each.path)
        assert each.reason == ""
    assert found[20].score == found[21].score == images(np.zeros((12, 12, 3), np.uint8))
    with pytest.raises(DataError, match="no file or folder"):
        next(images.stream([folder, tmp_path / "none"]))


def test_the_three_formats_hold_the_same(images, digits, tmp_path):
    (tmp_path / "=broken.png").write_bytes(b"x")
    inputs = [digits / "0" / "1.png", digits / "3" / "2.png", tmp_path / "=broken.png"]
    found = list(images.stream(inputs))
    tables = {}
    for ending in ("csv", "jsonl", "parquet"):
        with score_table(tmp_path / f"out.{ending}") as put:
            for scored in found:
                put(scored)
    with open(tmp_path / "out.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["path", "score", "anomaly", "error"]
    tables["csv"] = [
        (
            row["path"],
            float(row["score"] or "nan"),
            {"0": False, "1": True, "": None}[row["anomaly"]],
            row["error"] or None,
        )
        for row in read
    ]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for name, given in (
        ("jsonl", lines),
        ("parquet", pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()),
    ):
        tables[name] = [(row["path"], row["score"] or float("nan"), row["anomaly"], row["error"]) for row in given]
    for rows_of in tables.values():
        assert [row[0] for row in rows_of] == [str(path) for path in inputs]
        assert [row[2] for row in rows_of] == [*(each.score.anomaly for each in found[:2]), None]
        assert [row[3] for row in rows_of] == [None, None, found[2].reason]
        np.testing.assert_allclose([row[1] for row in rows_of[:2]], [each.score.error for each in found[:2]], rtol=1e-5)
        assert np.isnan(rows_of[2][1])


def test_refused_items_name_what_came(images, rows, tmp_path):
    for found, given, kind in (
        (images, 5, PhotoError), (images, np.zeros((12, 12, 3)), PhotoError), (images, tmp_path / "x.png", PhotoError),
        (rows, 5, DataError), (rows, np.zeros(12), DataError), (rows, tmp_path / "x.csv", DataError),
    ):  # fmt: skip
        for ask in (found, found.encode, found.reconstruct, found.score, found.anomalous):
            with pytest.raises(kind, match=r"^[^\n]*$"):
                ask(given)


# Measured on other data, and its codes written.


def test_figures_are_those_of_the_run_where_it_was_not_trained(rows, row_code_run, wines):
    figures = evaluate(rows, str(wines))
    told = row_code_run.metrics["test"]
    assert (figures["items"], figures["trained_on"], figures["unreadable"]) == (178, 178 - told["items"], 0)
    for key in ("items", "error", "error_per_value", "psnr"):
        assert figures["unseen"][key] == pytest.approx(told[key], rel=1e-5)
    assert figures["unseen"]["anomalies"]["false_alarms"] == told["anomalies"]["false_alarms"]
    assert figures["anomalies"]["above"] == rows.anomalous(wines).mean()
    low, high = figures["error_95"]
    assert low < figures["error"] < high
    assert figures["error"] == pytest.approx(rows.score(wines).mean())


def test_labels_tell_what_is_normal(images, image_code_run, digits):
    figures = evaluate(images, str(digits))
    told = image_code_run.metrics["test"]["anomalies"]
    assert figures["unseen"]["anomalies"].items() >= told.items()
    assert (told["anomalies"], figures["anomalies"]["anomalies"], figures["anomalies"]["normal"]) == (80, 80, 80)
    scores = images.score([digits / str(label) / f"{number}.png" for label in range(4) for number in range(40)])
    auroc = (scores[:80, None] < scores[None, 80:]).mean()
    assert figures["anomalies"]["auroc"] == pytest.approx(auroc)
    assert figures["anomalies"]["false_alarms"] == (scores[:80] > images.threshold).mean()


def test_without_labels_nobody_can_tell_what_is_normal(images, digits, tmp_path):
    shutil.copytree(digits / "3", tmp_path / "new")
    figures = evaluate(images, str(tmp_path / "new"))
    assert set(figures["anomalies"]) == {"above"}
    assert figures["trained_on"] == 0
    assert "unseen" not in figures


def test_codes_have_paths_and_labels(rows, images, wines, numbers, digits):
    found = encode(rows, str(wines))
    assert np.array_equal(found.vectors, rows.encode(numbers))
    assert (found.paths[3], found.labels[3], found.labels[-1]) == ("wines.csv#3", "cultivar 0", "cultivar 2")
    found = encode(images, str(digits))
    assert np.array_equal(found.vectors, images.encode([digits / path for path in found.paths]))
    assert [path[0] for path in found.paths] == found.labels


def test_the_run_folder_alone_is_needed(row_code_run, numbers, rows, tmp_path):
    """Moved away, and asked by a process that knows nothing else."""
    shutil.copytree(row_code_run.path, tmp_path / "moved")
    np.save(tmp_path / "x.npy", numbers[:5])
    code = "import kerastk, sys; print(kerastk.load('moved').score('x.npy').tolist())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == rows.score(numbers[:5]).tolist()
