import numpy as np
import pytest
from click.testing import CliRunner

from kerastk.cli import commands
from kerastk.errors import RunError
from kerastk.evaluation import comparison, pairs
from kerastk.evaluation.report import about
from tests.evaluation.pages import loads_nothing, words

CLASSES = ["a", "b", "<script>"]


@pytest.fixture
def runs(make_run):
    """A run, one that is much better, one that is the first again, and one on other photos."""
    return [
        make_run("first", classes=CLASSES, right=1, learning_rate=0.001),
        make_run("better", classes=CLASSES, right=4, seed=1, learning_rate=0.003),
        make_run("again", classes=CLASSES, right=1),
        make_run("elsewhere", classes=CLASSES, right=1, seed=3, of_data=9),
    ]


def test_pairs_are_compared_on_the_photos_that_both_tested(runs):
    abouts = [about(run) for run in runs]
    found = {(pair.first, pair.second): pair for pair in pairs.photo_pairs(abouts)}
    assert len(found) == 6
    right = [
        [row["truth"] == row["prediction"] for row in run.predictions] for run in runs
    ]  # fmt: skip
    pair = found[0, 1]
    assert pair.common == 200
    assert pair.first_alone == sum(a and not b for a, b in zip(right[0], right[1], strict=True))
    assert pair.second_alone == sum(b and not a for a, b in zip(right[0], right[1], strict=True))
    assert pair.chance < 1e-6
    assert (found[0, 2].first_alone, found[0, 2].second_alone, found[0, 2].chance) == (0, 0, 1.0)
    assert [found[number, 3].chance for number in range(3)] == [None] * 3


def beside(runs, folder):
    """The page that compares the runs."""
    out = folder / "beside.html"
    done = CliRunner().invoke(commands, ["report", *(str(run.path) for run in runs), "--out", str(out)])
    assert done.output == f"{out}\n"
    assert loads_nothing(out.read_text())
    return out.read_text()


def test_the_page_says_what_differs_and_whether_it_is_chance(runs, tmp_path):
    page = beside(runs, tmp_path)
    said = words(page)
    assert "better has the highest accuracy" in said
    assert "more than chance against first, again. With elsewhere it shares no test photo." in said
    assert "learning_rate 0.001 0.003 –" in said
    assert "The runs do not all have the same photos" in said


@pytest.fixture
def taggers(make_tagger_run):
    """A tagger, one that is much better, one that is the first again, and one on other sentences."""
    return [
        make_tagger_run("first", right=0.5, learning_rate=0.001),
        make_tagger_run("better", right=0.9, seed=1, learning_rate=0.003),
        make_tagger_run("again", right=0.5),
        make_tagger_run("elsewhere", right=0.5, seed=3, of_data=9),
    ]


def test_taggers_are_compared_on_the_sentences_that_both_tested(taggers, tmp_path):
    found = {(pair.first, pair.second): pair for pair in pairs.sentence_pairs([about(run) for run in taggers])}
    f1 = [run.metrics["test"]["f1"] for run in taggers]
    pair = found[0, 1]
    assert pair.common == 60
    assert pair.difference == pytest.approx(f1[1] - f1[0])
    assert 0 < pair.interval[0] < pair.difference < pair.interval[1]
    assert pair.chance < 0.01
    assert (found[0, 2].difference, found[0, 2].chance) == (0, 1.0)
    assert [found[number, 3].chance for number in range(3)] == [None] * 3
    page = beside(taggers, tmp_path)
    said = words(page)
    assert f"better has the highest F1, {100 * f1[1]:.1f} %." in said
    assert "On the same test sentences, that is more than chance against first, again." in said
    assert "With elsewhere it shares no test sentence." in said
    assert "learning_rate 0.001 0.003 –" in said
    assert page.count('role="img"') == 2
    assert "The runs do not all have the same sentences" in said
    assert "All have the same sentences in the same splits." in words(comparison.page(taggers[:3]))


def test_the_bootstrap_finds_as_little_difference_as_there_is():
    # Equal taggers that err in different sentences: such a difference comes by chance in 5 of 100 pairs.
    random = np.random.default_rng(0)
    found = []
    for seed in range(200):
        right = random.random((2, 150)) < 0.7
        one, other = (np.stack([each, np.ones(150), np.ones(150)], axis=1) for each in right)
        found.append(pairs.bootstrap(one, other, seed=seed, resamples=200)[2] < 0.05)
    assert 1 <= sum(found) <= 22


@pytest.fixture
def autoencoders(make_autoencoder_run):
    """An autoencoder, one that is much better, one that is the first again, and one on other items."""
    return [
        make_autoencoder_run("first", learning_rate=0.001),
        make_autoencoder_run("better", scale=0.5, seed=1, learning_rate=0.003),
        make_autoencoder_run("again"),
        make_autoencoder_run("elsewhere", seed=3, of_data=9),
    ]


def test_autoencoders_are_compared_by_their_errors_the_lower_the_better(autoencoders, tmp_path):
    found = {(pair.first, pair.second): pair for pair in pairs.item_pairs([about(run) for run in autoencoders])}
    errors = [run.metrics["test"]["error"] for run in autoencoders]
    pair = found[0, 1]
    assert pair.common == 80
    assert pair.difference == pytest.approx(errors[1] - errors[0], rel=1e-4)
    assert pair.interval[0] < pair.difference < pair.interval[1] < 0
    assert pair.chance < 1e-6
    assert (found[0, 2].difference, found[0, 2].interval, found[0, 2].chance) == (0, (0, 0), 1.0)
    assert [found[number, 3].chance for number in range(3)] == [None] * 3
    page = beside(autoencoders, tmp_path)
    said = words(page)
    assert f"better has the lowest error, {errors[1]:.2f}." in said
    assert "On the same test images, that is more than chance against first, again." in said
    assert "With elsewhere it shares no test image." in said
    assert f"better {errors[1]:.2f} " in said
    assert "learning_rate 0.001 0.003 –" in said
    # Of what no run has there is no column.
    assert " error PSNR PCA images time network made " in said
    assert page.count('role="img"') == 1
    assert "The runs do not all have the same images" in said
    assert "All have the same images in the same splits." in words(comparison.page(autoencoders[:3]))


def test_of_anomalies_errors_are_not_compared(make_autoencoder_run, tmp_path):
    # The second misses normal items less, and anomalies far more; over all items it would be the worse one.
    runs = [
        make_autoencoder_run("plain", normal="a", strange=5.0),
        make_autoencoder_run("keen", normal="a", strange=90.0, scale=0.5, seed=1),
    ]
    assert runs[0].metrics["test"]["error"] < runs[1].metrics["test"]["error"]
    (pair,) = pairs.item_pairs([about(run) for run in runs])
    assert (pair.common, pair.difference < 0) == (40, True)
    said = words(beside(runs, tmp_path))
    assert "keen has the lowest error" in said
    assert "Errors are those of normal images; how well anomalies are told from them is the AUROC." in said
    assert f" {runs[1].metrics['test']['anomalies']['auroc']:.3f} 80 " in said


def test_autoencoders_of_other_items_are_not_compared(make_autoencoder_run, make_run):
    small, large = make_autoencoder_run("small"), make_autoencoder_run("large", shape=(16, 16, 1))
    rows, photos = make_autoencoder_run("rows", shape=(5,)), make_run("photos", classes=["a", "b"])
    with pytest.raises(RunError, match=r"small by error of images of 8 x 8 x 1, large by error of images of 16 x 16 x"):
        comparison.page([small, large])
    with pytest.raises(RunError, match=r"small by error of images of 8 x 8 x 1, rows by error of rows of 5 numbers\.$"):
        comparison.page([small, rows])
    with pytest.raises(RunError, match=r"photos by accuracy of photos, rows by error of rows of 5 numbers\.$"):
        comparison.page([photos, rows])
    other = make_autoencoder_run("other rows", shape=(5,), scale=3.0)
    assert "rows has the lowest error" in words(comparison.page([other, rows]))


def test_errors_differ_by_chance_as_often_as_is_said():
    # Errors of equal size that come and go: such a difference comes by chance in 5 of 100 pairs.
    random = np.random.default_rng(0)
    found = [pairs.student(*random.gamma(4.0, 1.0, (2, 60))) for _ in range(400)]
    assert 8 <= sum(chance < 0.05 for _, _, chance in found) <= 34
    assert all((chance < 0.05) == (low > 0 or high < 0) for _, (low, high), chance in found)
    # Nothing is known of the spread of one; what is the same for all is no chance.
    assert pairs.student(np.ones(1), np.zeros(1)) == (-1.0, (-1.0, -1.0), 1.0)
    assert pairs.student(np.ones(5), np.zeros(5)) == (-1.0, (-1.0, -1.0), 0.0)


def test_machines_that_came_first_are_not_drawn_among_the_epochs(denoising_run):
    page = comparison.page([denoising_run, denoising_run])
    drawn = page.partition("<title>Error over epochs")[2].partition("</svg>")[0]
    trained = [row for row in denoising_run.log if row["phase"] == "train"]
    assert 0 < len(trained) < len(denoising_run.log)
    assert [len(part.partition('"')[0].split()) for part in drawn.split('points="')[1:]] == [len(trained)] * 2


def test_runs_that_are_judged_by_different_figures_are_not_compared(make_run, make_tagger_run):
    photos, names = make_run("photos", classes=["a", "b"]), make_tagger_run("names")
    speech = make_tagger_run("speech", types=("DET", "NOUN"), plain=True)
    with pytest.raises(
        RunError, match=r"^runs are compared by one figure; .*: photos by accuracy of photos, names by F1"
    ):
        comparison.page([photos, names])
    with pytest.raises(RunError, match=r"names by F1 of spans, speech by accuracy of words\.$"):
        comparison.page([names, speech])
    assert "speech has the highest accuracy" in words(
        comparison.page([make_tagger_run("worse", types=("DET", "NOUN"), plain=True, right=0.2), speech])
    )


def test_two_runs_of_one_name_are_told_apart_by_their_folders(runs, make_run, tmp_path):
    runs[0].path.rename(tmp_path / "first")
    moved, new = type(runs[0])(tmp_path / "first"), make_run("first", classes=CLASSES)
    said = words(comparison.page([moved, new]))
    assert f"{tmp_path.name}/first" in said
    assert "runs/first" in said


def test_predictions_that_are_not_those_of_the_data_are_refused(runs):
    rows = runs[0].predictions
    runs[0].write_predictions(rows[:-1])
    with pytest.raises(RunError, match=r"predictions.csv is damaged"):
        comparison.page(runs[:2])


def test_many_pairs_are_corrected_for(make_run):
    # By Holm: the smallest of three times 3, the next times 2, never below the one before.
    found = [pairs.Pair(0, 1, 9, 0, 0, chance) for chance in (0.02, 0.01, 0.9)]
    assert [pair.chance for pair in pairs._corrected(found)] == pytest.approx([0.04, 0.03, 0.9])
