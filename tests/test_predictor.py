import csv
import io
import json
import os
import tracemalloc
import zipfile

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

import kerastk
from kerastk.answers import table
from kerastk.errors import DataError, PhotoError, RecipeError, RunError, WeightsError
from kerastk.run import Run


@pytest.fixture(scope="module")
def predictor(small_run):
    return kerastk.load(small_run.path)


def test_the_same_photo_in_any_form_gives_the_same_answer(predictor, digits):
    path = digits / "2" / "3.png"
    label, probability = predictor(path)
    data = path.read_bytes()
    with Image.open(path) as image:
        forms = [str(path), data, image.copy(), np.asarray(image), np.asarray(image.convert("RGB"))]
        for form in forms:
            assert predictor(form) == (label, probability)
    assert predictor(forms) == [(label, probability)] * len(forms)


def test_top_gives_the_best_first(predictor, digits):
    answers = predictor(digits / "1" / "0.png", top=3)
    probabilities = [answer.probability for answer in answers]
    assert len(answers) == 3
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(answer.probability for answer in predictor(digits / "1" / "0.png", top=9)) == pytest.approx(1, abs=1e-5)


def test_the_predictor_agrees_with_the_tests_of_the_run(predictor, small_run, digits):
    rows = list(csv.DictReader(open(small_run.predictions_csv)))
    answers = predictor([digits / row["path"] for row in rows])
    for row, answer in zip(rows, answers, strict=True):
        assert row["prediction"] == answer.label
        assert float(row["probability"]) == pytest.approx(answer.probability, abs=1e-6)


@pytest.mark.parametrize(
    "photo", [np.zeros((8, 8, 3), "float32"), np.zeros((8, 8, 4), "uint8"), np.zeros(8, "uint8"), 5, None, b"", b"x"]
)
def test_what_is_no_photo_is_refused(predictor, photo):
    with pytest.raises(PhotoError):
        predictor(photo)


def test_a_missing_file_is_named(predictor, tmp_path):
    with pytest.raises(PhotoError, match=r"none.jpg: No such file"):
        predictor(tmp_path / "none.jpg")


@pytest.fixture
def inputs(digits, tmp_path):
    """A folder with a nested, a damaged and an oddly named photo, an archive, and one single file."""
    folder = tmp_path / "new"
    (folder / "deeper").mkdir(parents=True)
    photo = (digits / "3" / "1.png").read_bytes()
    (folder / "10.png").write_bytes(photo)
    (folder / "9.png").write_bytes(photo)
    (folder / "deeper" / 'odd\nname, "quoted".png').write_bytes(photo)
    (folder / "broken.png").write_bytes(photo[:40])
    (folder / ".hidden.png").write_bytes(photo)
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("a/1.png", photo)
        archive.writestr("a/2.png", b"")
    return [folder, tmp_path / "more.zip", digits / "3" / "1.png"]


def test_every_input_gets_a_row_in_order(predictor, inputs, tmp_path):
    found = list(predictor.stream(inputs, top=2))
    names = [os.path.basename(each.path) for each in found]
    assert names == ["9.png", "10.png", "broken.png", 'odd\nname, "quoted".png', "1.png", "2.png", "1.png"]
    errors = {name: each.error for name, each in zip(names, found, strict=True)}
    assert errors["2.png"] == "the file is empty"
    assert errors["broken.png"]
    good = [each for each in found if not each.error]
    assert len({tuple(each.answers) for each in good}) == 1
    assert all(len(each.answers) == 2 for each in good)


def test_the_three_formats_hold_the_same(predictor, inputs, tmp_path):
    rows = {}
    for ending in ("csv", "jsonl", "parquet"):
        with table(tmp_path / f"out.{ending}", 2) as put:
            for prediction in predictor.stream(inputs, top=2):
                put(prediction)
    rows["csv"] = [
        (r["path"], r["label"] or None, r["error"] or None)
        for r in csv.DictReader(open(tmp_path / "out.csv", newline=""))
    ]
    lines = [json.loads(line) for line in open(tmp_path / "out.jsonl")]
    rows["jsonl"] = [(r["path"], r["answers"][0]["label"] if r["answers"] else None, r["error"]) for r in lines]
    parquet = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    rows["parquet"] = [(r["path"], r["label"], r["error"]) for r in parquet]
    assert rows["csv"] == rows["jsonl"] == rows["parquet"]
    assert len(rows["csv"]) == 7


def test_an_interrupted_table_leaves_nothing(predictor, tmp_path):
    def interrupted():
        with table(tmp_path / "out.csv", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_another_ending_is_refused(tmp_path):
    with (
        pytest.raises(RecipeError, match=r"--out must end in .csv, .jsonl, .parquet; got"),
        table(tmp_path / "x.xls", 1),
    ):
        pass


def test_a_missing_input_is_refused_before_anything_is_answered(predictor, tmp_path, digits):
    with pytest.raises(DataError, match="no file or folder"):
        next(predictor.stream([digits / "1", tmp_path / "none"]))


def test_linked_folders_are_followed_and_loops_get_a_row(predictor, tmp_path, digits):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "linked").symlink_to(digits / "1", target_is_directory=True)
    (tmp_path / "new" / "loop").symlink_to(tmp_path / "new", target_is_directory=True)
    found = list(predictor.stream([tmp_path / "new"]))
    assert sum(not each.error for each in found) == 40
    assert [each.path for each in found if each.error] == [str(tmp_path / "new" / "loop")]


def test_a_damaged_archive_is_a_row_with_its_error(predictor, tmp_path, digits):
    (tmp_path / "broken.tar.gz").write_bytes(b"\x1f\x8b no archive")
    found = list(predictor.stream([tmp_path / "broken.tar.gz", digits / "1" / "0.png"]))
    assert [bool(each.error) for each in found] == [True, False]


def test_an_opened_jpeg_gives_the_answer_of_its_file(predictor, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    Image.fromarray(noise).resize((600, 400)).save(tmp_path / "a.jpg", quality=90)
    with Image.open(tmp_path / "a.jpg") as image:
        assert np.array_equal(predictor.pixels(image), predictor.pixels(tmp_path / "a.jpg"))
        # The caller's image is left as it was.
        assert image.size == (600, 400)
        assert np.asarray(image).shape == (400, 600, 3)


def test_memory_does_not_grow_with_the_number_of_photos(predictor, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())

    def peak(photos):
        tracemalloc.start()
        assert sum(1 for _ in predictor.stream([tmp_path / "a.png"] * photos, threads=2)) == photos
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(32)
    assert peak(400) < 1.5 * peak(100)


def test_a_run_whose_parts_do_not_fit_is_refused(small_run, tmp_path):
    def copy(**labels):
        run = Run.create(tmp_path, f"r{len(os.listdir(tmp_path))}")
        for file in (small_run.environment_json, small_run.model_keras):
            (run.path / file.name).write_bytes(file.read_bytes())
        (run.path / "labels.json").write_text(json.dumps({**small_run.labels, **labels}))
        return run

    with pytest.raises(RunError, match="do not belong together"):
        kerastk.load(copy(classes=["a", "b"]).path)
    with pytest.raises(RunError, match="does not describe a classifier"):
        kerastk.load(copy(resize="squash").path)
    damaged = copy()
    damaged.model_keras.write_bytes(damaged.model_keras.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="cannot load"):
        kerastk.load(damaged.path)


def test_the_calibration_can_be_undone_and_the_answers_stay(small_run, predictor, digits):
    temperature = small_run.metrics["best"]["temperature"]
    assert temperature != 1
    raw = kerastk.load(small_run, calibrated=False)
    photos = [digits / "2" / "3.png", digits / "1" / "0.png"]
    for one, other in zip(predictor(photos, top=4), raw(photos, top=4), strict=True):
        assert [each.label for each in one] == [each.label for each in other]
        logits = temperature * np.log([each.probability for each in one])
        wanted = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose([each.probability for each in other], wanted, atol=1e-5)


def test_what_is_not_calibrated_cannot_be_undone(small_run, tmp_path):
    run = Run.create(tmp_path, "run")
    for file in (small_run.environment_json, small_run.metrics_json):
        (run.path / file.name).write_bytes(file.read_bytes())
    (run.path / "labels.json").write_text(json.dumps({**small_run.labels, "head": "svm"}))
    with pytest.raises(RunError, match="has the head svm, which is not calibrated"):
        kerastk.load(run, calibrated=False)
    (run.path / "labels.json").write_text(json.dumps(small_run.labels))
    for value in (0, -1, "x", None, 1e9):
        run.metrics_json.write_text(json.dumps({"best": {"temperature": value}}))
        with pytest.raises(RunError, match=r"metrics.json is damaged"):
            kerastk.load(run, calibrated=False)


def test_views_of_a_photo_are_averaged(small_run, predictor, digits):
    pixels = np.stack([predictor.pixels(digits / "2" / f"{number}.png") for number in range(5)])
    # One pixel of 32 up and left, and down and right.
    up_left = np.pad(pixels, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")[:, 1:, 1:]
    down_right = np.pad(pixels, ((0, 0), (1, 0), (1, 0), (0, 0)), mode="edge")[:, :-1, :-1]
    plain, moved, other = map(predictor.scores, (pixels, up_left, down_right))
    mirrored, *mirrored_moved = (predictor.scores(each[:, :, ::-1]) for each in (pixels, up_left, down_right))
    wanted = {
        "mirror": (plain + mirrored) / 2,
        "shift": plain / 2 + (moved + other) / 4,
        "mirror,shift": (plain + mirrored) / 4 + sum([moved, other, *mirrored_moved]) / 8,
    }
    assert not np.allclose(plain, mirrored)
    for tta, scores in wanted.items():
        np.testing.assert_allclose(kerastk.load(small_run, tta=tta).scores(pixels), scores, rtol=1e-5)


@pytest.mark.parametrize("tta", ["flip", "", "mirror,mirror", "mirror shift"])
def test_unknown_views_are_refused(small_run, tta):
    with pytest.raises(RecipeError, match=f"tta must be mirror, shift or mirror,shift; got '{tta}'"):
        kerastk.load(small_run, tta=tta)


def test_only_classifiers_of_photos_average_views(tagger_run, row_code_run):
    with pytest.raises(RunError, match="is a tagger; tta is for classifiers of photos"):
        kerastk.load(tagger_run, tta="mirror")
    with pytest.raises(RunError, match="is an autoencoder; tta is for classifiers of photos"):
        kerastk.load(row_code_run, tta="mirror")
