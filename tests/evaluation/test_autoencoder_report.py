import base64
import json
import shutil

import numpy as np
import pytest

from kerastk.datasets.files import Finding
from kerastk.datasets.images import to_jpeg, to_png, to_webp, whole
from kerastk.errors import RunError
from kerastk.evaluation import autoencoder_reading as reading
from kerastk.evaluation import autoencoder_report, charts, gallery, reconstruction, report
from kerastk.evaluation.autoencoder_about import decibels, missed, spelled
from kerastk.run import Run
from tests.evaluation.pages import (
    HOSTILE,
    Elements,
    fits_a_phone,
    is_made_again,
    loads_nothing,
    looks_right,
    spoil,
    words,
)


def pictures(page):
    """What the page's pictures hold, in their order."""
    return [base64.b64decode(each["src"].partition(",")[2]) for each in Elements(page).named("img")]


def titles(page):
    """The titles of the page's charts, in their order."""
    return [each.partition("<")[0] for each in page.split('role="img"><title>')[1:]]


def chart(page, title):
    """The drawing under this title."""
    return page.partition(f"<title>{title}<")[2].partition("</svg>")[0]


def paths(drawing):
    """What each path of a drawing goes along."""
    return [part.partition('"')[0] for part in drawing.split(' d="')[1:]]


def test_a_run_of_an_autoencoder_ends_with_its_report(denoising_run):
    page = denoising_run.report_html.read_text()
    assert loads_nothing(page)
    figures, said = denoising_run.metrics["test"], words(page)
    low, high = figures["error_95"]
    pca, logistic = (figures["rivals"][name]["error"] for name in ("PCA", "logistic PCA"))
    assert f"reconstructions of {figures['items']} test images miss {figures['error']:.2f} of each" in said
    assert f"(95 % interval {low:.2f} to {high:.2f}): the squared differences of 64 pixels from 0 to 1, summed" in said
    assert f"PCA with 4 numbers, as many as the code has, misses {pca:.2f}" in said
    before, after = figures["denoised"]["psnr_before"], figures["denoised"]["psnr_after"]
    verb = "rises" if after > before else "falls"
    assert f"Of damaged images the PSNR {verb} from {before:.1f} to {after:.1f} dB." in said
    fitted = denoising_run.data["counts"]["train"]
    assert f"kerastk {figures['error']:.2f} {figures['psnr']:.1f} dB {sum(fitted.values())} " in said
    assert f"logistic PCA {logistic:.2f} {decibels(logistic / 64):.1f} dB {sum(fitted.values())} " in said
    assert "originals as they are shown reconstructions PCA logistic PCA" in _listed(page)
    checkerboard = [f"{figures['checkerboard'][name]:+.1f}" for name in ("reconstructions", "originals")]
    assert "{} dB in the reconstructions, {} dB in the originals".format(*checkerboard).replace("-", "−") in said
    assert 'noise = "gaussian:0.3"' in said
    assert denoising_run.environment["versions"]["keras"] in said
    assert titles(page) == [
        "Error over epochs", "Loss over epochs", "Learning rate over epochs", "Map of the codes",
        "Histogram of the error",
    ]  # fmt: skip
    # The phases of the machines are drawn, but not their losses.
    phases = ["rbm-1", "rbm-2", "train"]
    assert [name for name in phases if f">{name}<" in chart(page, "Error over epochs")] == phases
    assert [name for name in phases if f">{name}<" in chart(page, "Loss over epochs")] == ["train"]
    # Rows of reconstructions, the worst in pairs, ways between codes.
    assert len(pictures(page)) == 1 + 24 + 1


def _listed(page):
    """The text of all items of lists."""
    return " ".join(part.partition("</li>")[0].rpartition(">")[2] for part in page.split("<li>")[1:])


def test_the_report_is_made_again_from_the_run_folder_alone_and_is_the_same(variational_run, tmp_path):
    is_made_again(variational_run, tmp_path)


def test_a_variational_one_has_its_bound_its_prior_and_samples(variational_run):
    page = variational_run.report_html.read_text()
    assert loads_nothing(page)
    figures, said = variational_run.metrics["test"], words(page)
    prior = figures["prior"]
    assert f"The evidence lower bound is {spelled(figures['elbo'])} nats." in said
    assert f"{prior['active']} of {prior['numbers']} numbers of the code are in use" in said
    mean, deviation, nats, kl = map(spelled, (prior["mean"], prior["deviation"], figures["nats"], figures["kl"]))
    assert f"mean is {mean} away from 0 and its standard deviation {deviation}" in said
    assert f"({nats}) and the codes' distance to the normal distribution (KL, {kl}), taken from 0" in said
    assert {"Reconstruction over epochs", "KL over epochs"} < set(titles(page))
    kept = variational_run.gallery["pictures"]
    assert base64.b64decode(kept["samples"]) == pictures(page)[-1]
    assert base64.b64decode(kept["ways"]) == pictures(page)[-2]
    assert base64.b64decode(kept["reconstructions"]) == pictures(page)[0]


def test_the_worst_are_cut_from_their_picture(variational_run):
    page = variational_run.report_html.read_text()
    kept = variational_run.gallery
    sheet = whole(base64.b64decode(kept["pictures"]["worst"]))
    found = [whole(each) for each in pictures(page)[1:-2]]
    assert len(found) == 2 * len(kept["worst"]) == 24
    for number, each in enumerate(found):
        top, left = 10 * (number % 2), 10 * (number // 2)
        assert (each == sheet[top : top + 8, left : left + 8]).all()
    said = words(page)
    for each in kept["worst"]:
        assert f"error {each['error']:.2f}, {each['label']}{each['path']}" in said
    rows = {row["path"]: float(row["score"]) for row in variational_run.predictions}
    assert [each["error"] for each in kept["worst"]] == pytest.approx(sorted(rows.values())[:-13:-1], rel=1e-4)


def test_anomalies_are_told_from_what_is_normal(one_class_run):
    page = one_class_run.report_html.read_text()
    metrics, said = one_class_run.metrics, words(page)
    figures = metrics["test"]["anomalies"]
    assert f"Errors tell {figures['anomalies']} anomalies from {figures['normal']} normal test images" in said
    assert f"with an AUROC of {figures['auroc']:.3f}: at the threshold {100 * figures['found']:.1f} % are found" in said
    rows = [(row["label"], float(row["score"])) for row in one_class_run.predictions]
    normal = np.array([score for label, score in rows if label in "01"])
    strange = np.array([score for label, score in rows if label not in "01"])
    # An anomaly is to be missed: PCA stands beside the network where there are none.
    assert f"miss {normal.mean():.2f} of a normal image, {strange.mean():.2f} of an anomaly" in said
    validation = metrics["validation"]
    assert f"all normal, it misses {validation['error']:.2f}, and PCA with 4 numbers" in said
    assert f"PCA {validation['rivals']['PCA']['error']:.2f} " in said
    low, high = reconstruction.false_alarm_interval(len(normal), validation["items"], 0.01)
    alarms, most = f"{100 * figures['false_alarms']:.2f} %", f"{100 * low:.2f} % – {100 * high:.2f} %"
    assert f"error {metrics['anomaly']['threshold']:.2f} {alarms} of {len(normal)} {most} " in said
    precision = figures["average_precision"]
    assert f"{100 * figures['found']:.1f} % of {len(strange)} {figures['auroc']:.3f} {precision:.3f}" in said
    least = 100 / (validation["items"] + 1)
    assert f"{validation['items']} validation images are too few to set a threshold for 1.0 % false alarms" in said
    assert f"the largest of their errors, for {least:.1f} %" in said
    assert page.count('class="area c1"') == page.count('class="area c2"') == 1
    of_seven = np.array([score for label, score in rows if label == "7"])
    above = 100 * (of_seven > metrics["anomaly"]["threshold"]).mean()
    assert f"7 anomaly {len(of_seven)} {of_seven.mean():.2f} " in said
    assert f"{above:.1f} %" in said.partition(f"7 anomaly {len(of_seven)} ")[2][:60]
    assert " 0 normal " in said


def test_rows_of_numbers_have_a_table_of_columns_and_no_pictures(rows_run):
    page = rows_run.report_html.read_text()
    assert loads_nothing(page)
    assert not pictures(page)
    said, figures = words(page), rows_run.metrics["test"]
    assert f"test rows miss {figures['error']:.2f} of each" in said
    assert "the squared differences of 9 numbers in standard deviations, summed" in said
    columns = rows_run.gallery["columns"]
    assert [each["name"] for each in columns] != sorted(each["name"] for each in columns)
    places = [said.index(f"{each['name']} {spelled(each['error'])} ") for each in columns]
    assert places == sorted(places)
    assert len(places) == 9
    worst = sorted(rows_run.predictions, key=lambda row: -float(row["score"]))[:12]
    places = [said.index(f"{row['path']} {float(row['score']):.2f} ") for row in worst]
    assert places == sorted(places)
    assert "PSNR" not in said
    assert "There are no labels." in said
    assert "Label by label" not in said


def test_what_is_not_imported_is_the_same_here_as_there():
    # The gallery brings Keras, which `kerastk report` does without.
    assert (reading._WIDE, reading._DEEP, reading.GAP) == (gallery.WIDE, gallery.DEEP, gallery._GAP)
    assert gallery.STEPS == gallery.WIDE
    # Of these an earlier version may have had more.
    assert reading._POINTS >= gallery.POINTS
    assert reading._LISTED >= gallery.LISTED
    assert decibels(0.013) == pytest.approx(reconstruction.psnr(0.013))
    errors = np.random.default_rng(0).gamma(4, 1, 60)
    figures = reconstruction.figures(errors, 9)
    assert missed(errors).error == pytest.approx(figures["error"])
    assert missed(errors).interval == pytest.approx(tuple(figures["error_95"]))


def test_figures_are_spelled_as_they_are_read():
    figures = (0, 3.5193, 611.65, 12345.6, -90.126, 0.01234, 1e-9)
    assert [spelled(each) for each in figures] == ["0.00", "3.52", "611.65", "12\u202f346", "−90.13", "0.0123", "1e−09"]


def test_a_linear_code_that_does_better_is_said_to(make_autoencoder_run):
    run = make_autoencoder_run()
    error = run.metrics["test"]["error"]
    assert f"misses {2 * error:.2f}: 50 % less is missed here." in words(report.page(run))
    spoil(run, "metrics.json", lambda it: it["test"]["rivals"]["PCA"].update(error=error / 2))
    said = words(report.page(run))
    assert f"misses {error / 2:.2f}: here a linear code does better." in said
    spoil(run, "metrics.json", lambda it: it["test"].update(rivals={}))
    said = words(report.page(run))
    assert "PCA with" not in said
    assert "Error of PCA" not in said
    assert "A code of 4 numbers is too large for a linear one to stand beside it." in said


def test_a_second_score_has_a_second_row(make_autoencoder_run):
    run = make_autoencoder_run(normal="a", labels=("a", "b"), distance=True)
    page = report.page(run)
    figures, limit = run.metrics["test"]["anomalies_by_distance"], run.metrics["anomaly"]["distance"]["threshold"]
    assert f"distance (resnet50) {spelled(limit)} {100 * figures['false_alarms']:.2f} % of 40 " in words(page)
    assert [each for each in titles(page) if each.startswith("Histogram")] == [
        "Histogram of the error", "Histogram of the distance (resnet50)",
    ]  # fmt: skip
    run.write_predictions([{name: cell for name, cell in row.items() if name != "distance"} for row in run.predictions])
    with pytest.raises(RunError, match=r"predictions\.csv is damaged\.$"):
        report.page(run)


def test_more_false_alarms_than_chance_gives_are_pointed_out(make_autoencoder_run):
    run = make_autoencoder_run(items=400)
    assert "where chance alone gives" not in words(report.page(run))
    spoil(run, "metrics.json", lambda it: it["test"]["anomalies"].update(false_alarms=0.2))
    low, high = reconstruction.false_alarm_interval(400, 400, 0.01)
    said = words(report.page(run))
    assert "Of the normal test images 20.00 % are called anomalies by their error" in said
    assert f"where chance alone gives {100 * low:.2f} % to {100 * high:.2f} %" in said


def test_a_pattern_that_stands_out_and_idle_numbers_are_pointed_out(make_autoencoder_run):
    run = make_autoencoder_run(variational=True)
    said = words(report.page(run))
    assert "1 of the 4 numbers of the code says nothing of the image" in said
    assert "No checkerboard stands out." in said
    spoil(run, "metrics.json", lambda it: it["test"]["checkerboard"].update(reconstructions=9.0))
    said = words(report.page(run))
    assert "A pattern of every other pixel stands out in the reconstructions" in said
    assert "A checkerboard stands out that the originals have not." in said
    spoil(run, "metrics.json", lambda it: it["test"]["checkerboard"].update(originals=9.0))
    said = words(report.page(run))
    assert "A pattern of every other pixel" not in said
    assert "It stands out in both." in said


def test_the_map_has_ten_colours_and_grey(make_autoencoder_run):
    labels = [f"kind {number:02d}" for number in range(14)]
    page = report.page(make_autoencoder_run(labels=labels, items=147))
    drawn = chart(page, "Map of the codes")
    dots = [part.partition('"')[0] for part in drawn.split('class="dots ')[1:]]
    assert dots[0] == "c8"
    assert sorted(dots) == sorted(["c8", *(f"c{colour}" for colour in autoencoder_report.COLOURS)])
    # Of 147 points the first seven labels have eleven, the others ten; four of these are grey.
    assert [part.count("h0") for part in drawn.split('class="dots ')[1:]] == [40, *[11] * 7, *[10] * 3]
    assert "others 40" in words(page)
    for colour in autoencoder_report.COLOURS:
        assert f".dots.c{colour} {{" in page


def test_one_number_of_a_code_is_drawn_in_lines(make_autoencoder_run):
    run = make_autoencoder_run(labels=("a", "b", "c"))
    spoil(run, "labels.json", lambda it: it.update(latent=1))
    page = report.page(run)
    assert "from left to right, a line a label" in words(page)
    heights = [
        {dot.split()[1] for dot in path.removesuffix("h0").split("h0")}
        for path in paths(chart(page, "Map of the codes"))
    ]
    assert [len(each) for each in heights] == [1, 1, 1]
    assert len(set.union(*heights)) == 3


def test_names_that_would_lie_over_each_other_are_in_the_legend_alone():
    near = [charts.Group("one", 1, [(0.5, 0.5)]), charts.Group("two", 2, [(0.51, 0.51)])]
    apart = [charts.Group("one", 1, [(0.1, 0.1)]), charts.Group("two", 2, [(0.9, 0.9)])]
    assert charts.scatter(near, "").count('class="place"') == 1
    assert charts.scatter(apart, "").count('class="place"') == 2


def test_a_histogram_has_its_threshold_and_tells_what_lies_beyond():
    values = np.concatenate([np.linspace(0, 9, 1000), [1e6] * 3])
    picture = charts.histogram([(values, 1)], 5.0, "x")
    assert "3 further right" in picture
    assert ">9<" in picture or ">10<" in picture
    assert "further" not in charts.histogram([(values[:1000], 1)], 5.0, "x")
    # Shares of each group: a group of one value reaches as high as one of a thousand of them.
    first, second = paths(charts.histogram([(np.ones(1), 1), (np.ones(999), 2)], 5.0, "x"))
    assert first == second


def test_a_run_without_a_test_split_says_so(digit_arrays, train_autoencoder):
    run = train_autoencoder("no-test", digit_arrays[1], split="80/20", epochs=1)
    said = words(run.report_html.read_text())
    assert f"reconstructions of {run.metrics['validation']['items']} validation rows" in said
    assert "There is no test split: these are the figures of the rows that chose the model" in said
    assert "The false alarms are those of the rows that set the threshold" in said


def test_without_pictures_there_is_the_rest(make_autoencoder_run):
    run = make_autoencoder_run()
    run.gallery_json.unlink()
    page = report.page(run)
    said = words(page)
    assert "The run has not kept the pictures." in said
    assert not pictures(page)
    assert "Label by label" in said


def test_names_and_texts_of_the_data_are_escaped(make_autoencoder_run):
    findings = [Finding("leak", ("<b>.png",), "<i>text</i>"), Finding("new kind", ("x",), "")]
    run = make_autoencoder_run(
        "<script>x<script>", labels=HOSTILE, normal=HOSTILE[0], findings=findings, distance=True,
        paths="<script>{label}#{split}{number}",
    )  # fmt: skip
    spoil(run, "gallery.json", lambda it: it["rows"].__setitem__(1, HOSTILE[1]))
    spoil(run, "metrics.json", lambda it: it["anomaly"]["distance"].update(base=HOSTILE[0]))
    spoil(run, "metrics.json", lambda it: it["validation"]["rivals"].update({HOSTILE[0]: it["test"]["rivals"]["PCA"]}))
    page = report.page(run)
    assert loads_nothing(page)
    said = words(page)
    assert "<script>alert(1)</script>" in said
    assert "distance (<script>alert(1)</script>)" in said
    assert "<b>.png (<i>text</i>)" in said
    # What turns the reading direction is shown as an escape.
    assert "\u202e" not in page
    rows = make_autoencoder_run("rows", shape=(5,), names=HOSTILE)
    page = report.page(rows)
    assert loads_nothing(page)
    assert "<script>alert(1)</script> 1.00" in words(page)


def test_many_labels_and_items_make_no_large_page(make_autoencoder_run):
    labels = [f"kind {number}" for number in range(3000)]
    page = report.page(make_autoencoder_run(labels=labels, items=9000))
    assert "Of 3 000 labels the first 100." in words(page)
    assert len(page) < 400_000


def test_an_interrupted_run_has_no_report_yet(make_autoencoder_run):
    run = make_autoencoder_run()
    run.metrics_json.unlink()
    with pytest.raises(RunError, match=r"has no metrics\.json: the run did not come so far"):
        report.page(run)


def sheet(height, width, written=to_png):
    """A picture of so many pixels as it stands in gallery.json."""
    return base64.b64encode(written(np.zeros((height, width, 3), np.uint8))).decode()


# What figures of anomalies have where there are both sorts of items.
BOTH = {"found": 1.0, "auroc": 0.9, "average_precision": 0.9}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("gallery.json", lambda it: it["pictures"].update(worst="javascript:alert(1)")),
        ("gallery.json", lambda it: it["pictures"].update(worst=base64.b64encode(b"<svg onload=x>").decode())),
        ("gallery.json", lambda it: it["pictures"].update(worst=7)),
        ("gallery.json", lambda it: it["pictures"].update(worst=sheet(18, 118, to_jpeg))),
        ("gallery.json", lambda it: it["pictures"].update(ways=sheet(4000, 4000))),
        ("gallery.json", lambda it: it["pictures"].update(ways=sheet(58, 108))),
        ("gallery.json", lambda it: it["pictures"].update(reconstructions=sheet(38, 118))),
        ("gallery.json", lambda it: it["pictures"].update(reconstructions=sheet(28, 128))),
        ("gallery.json", lambda it: it["pictures"].pop("ways")),
        ("gallery.json", lambda it: it["pictures"].update(worst="A" * 65_000_000)),
        ("gallery.json", lambda it: it.update(pictures=[])),
        ("gallery.json", lambda it: it.update(rows=["x"] * 7)),
        ("gallery.json", lambda it: it.update(rows=["x" * 101] * 3)),
        ("gallery.json", lambda it: it.update(split="validation")),
        ("gallery.json", lambda it: it.update(worst=it["worst"] * 2)),
        ("gallery.json", lambda it: it["worst"][0].update(path="x" * 32_769)),
        ("gallery.json", lambda it: it["worst"][0].update(error="high")),
        ("gallery.json", lambda it: it["worst"][0].update(error=float("nan"))),
        ("gallery.json", lambda it: it.update(points=it["points"] * 20)),
        ("gallery.json", lambda it: it["points"].append([0.5, 0.5, 2])),
        ("gallery.json", lambda it: it["points"].append([0.5, 1.5, 0])),
        ("gallery.json", lambda it: it["points"].append([0.5])),
        ("gallery.json", lambda it: it.update(labels={"a": 1})),
        ("metrics.json", lambda it: it["test"].update(error=float("inf"))),
        ("metrics.json", lambda it: it["test"].update(error=-1.0)),
        ("metrics.json", lambda it: it["test"].update(error_95=[1.0])),
        ("metrics.json", lambda it: it["test"].update(items=0)),
        ("metrics.json", lambda it: it["test"].update(psnr="good")),
        ("metrics.json", lambda it: it["test"].update(rivals=[1])),
        ("metrics.json", lambda it: it["test"]["rivals"]["PCA"].pop("fitted_on")),
        ("metrics.json", lambda it: it["test"].update(elbo=-9.0)),
        ("metrics.json", lambda it: it["test"].update(denoised={"psnr_before": 1})),
        ("metrics.json", lambda it: it["test"]["anomalies"].update(normal=79)),
        ("metrics.json", lambda it: it["test"]["anomalies"].update(normal=79, anomalies=1)),
        ("metrics.json", lambda it: it["test"]["anomalies"].update(normal=79, anomalies=1, **BOTH)),
        ("metrics.json", lambda it: it["test"]["anomalies"].update(auroc=0.5)),
        ("metrics.json", lambda it: it["test"]["anomalies"].pop("false_alarms")),
        ("metrics.json", lambda it: it["test"].update(anomalies_by_distance=it["test"]["anomalies"])),
        ("metrics.json", lambda it: it.pop("anomaly")),
        ("metrics.json", lambda it: it["anomaly"].update(calibrated_on=0)),
        ("metrics.json", lambda it: it["anomaly"].update(false_alarms=0)),
        ("metrics.json", lambda it: it["anomaly"].update(distance={"base": "x", "threshold": 1})),
        ("data.json", lambda it: it.update(counts=[])),
        ("data.json", lambda it: it["files"].append("x")),
        ("data.json", lambda it: it["files"][0].update(path="x" * 32_769)),
        ("labels.json", lambda it: it.update(task="finetune")),
        ("labels.json", lambda it: it.update(items="photos")),
        ("labels.json", lambda it: it.update(shape=[8, 8])),
        ("labels.json", lambda it: it.update(shape=[8, 0, 1])),
        ("labels.json", lambda it: it.update(shape=[10**6, 10**6, 1])),
        ("labels.json", lambda it: it.update(latent="4")),
        ("environment.json", lambda it: it.update(versions=["3.15"])),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_file_that_says_what_it_cannot_is_one_line(name, change, make_autoencoder_run):
    run = make_autoencoder_run()
    assert report.page(run)
    spoil(run, name, change)
    with pytest.raises(RunError, match=rf"{name} is damaged\.$"):
        report.page(run)


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it[:-1], lambda it: it + it[:1], lambda it: it[::-1],
        lambda it: [{**row, "label": "other"} for row in it], lambda it: [{**row, "score": "low"} for row in it],
        lambda it: [{**row, "score": "nan"} for row in it], lambda it: [{**row, "score": "1e300"} for row in it],
        lambda it: [{"path": row["path"], "label": row["label"]} for row in it], lambda it: [],
    ],
)  # fmt: skip
def test_predictions_that_are_not_those_of_the_data_are_refused(change, make_autoencoder_run):
    run = make_autoencoder_run()
    run.write_predictions(change(run.predictions))
    with pytest.raises(RunError, match=r"predictions\.csv is damaged\.$"):
        report.page(run)


def test_a_picture_of_which_the_head_alone_is_good_costs_the_cards_alone(make_autoencoder_run):
    run = make_autoencoder_run()
    whole_one = base64.b64decode(sheet(18, 118, to_webp))
    broken = base64.b64encode(whole_one[:40] + b"\xff" * (len(whole_one) - 40)).decode()
    spoil(run, "gallery.json", lambda it: it["pictures"].update(worst=broken))
    assert words(report.page(run)).count("the picture is damaged") == 12


def test_large_pictures_come_as_webp(make_autoencoder_run):
    run = make_autoencoder_run()
    spoil(run, "gallery.json", lambda it: it["pictures"].update(worst=sheet(18, 118, to_webp)))
    page = report.page(run)
    assert loads_nothing(page)
    assert page.count("data:image/webp;base64,") == 24


def test_long_paths_are_shortened(make_autoencoder_run):
    run = make_autoencoder_run(paths="begin" + "x" * 3000 + "{label}{split}{number}")
    page = report.page(run)
    assert "x" * 100 in page
    assert "x" * 200 not in page
    assert words(page).count("…") == 12


def test_apostrophes_of_the_table_are_no_other_paths(make_autoencoder_run):
    # A spreadsheet would run them; predictions.csv has an apostrophe in front of such a path and label.
    run = make_autoencoder_run(labels=("=a", "-b"), paths="+{label}{split}{number}")
    assert run.predictions[0]["path"].startswith("'+")
    assert " =a 40 " in words(report.page(run))


def test_the_page_in_a_browser(denoising_run, one_class_run, rows_run, make_autoencoder_run, tmp_path):
    looks_right(one_class_run, "autoencoder-report", height=5000)
    many = make_autoencoder_run(
        labels=[*HOSTILE, *(f"kind {number}" for number in range(40))], normal=HOSTILE[3], distance=True, items=300,
        variational=True, scale=1e4, strange=1e6,
    )  # fmt: skip
    spoil(many, "gallery.json", lambda it: it["worst"][0].update(path="x" * 3000))
    numbers = make_autoencoder_run("numbers", shape=(5,), names=HOSTILE, paths="x" * 300 + "{split}{number}")
    for run in (many, numbers):
        run.write_report(report.page(run))
    fits_a_phone(tmp_path, denoising_run, one_class_run, rows_run, many, numbers)


def test_a_run_that_came_from_elsewhere_is_read_where_it_lies(one_class_run, tmp_path):
    shutil.copytree(one_class_run.path, tmp_path / "moved")
    moved = Run.open(tmp_path / "moved")
    assert json.loads(moved.gallery_json.read_text())["split"] == "test"
    assert "<h1>moved</h1>" in report.page(moved)
