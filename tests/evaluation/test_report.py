import base64
import json

import numpy as np
import pytest
from click.testing import CliRunner

import kerastk
from kerastk.cli import commands
from kerastk.datasets.files import Finding
from kerastk.datasets.images import to_webp
from kerastk.errors import RunError
from kerastk.evaluation import report
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


def test_a_run_ends_with_its_report(small_run):
    page = small_run.report_html.read_text()
    assert loads_nothing(page)
    figures, said = small_run.metrics["test"], words(page)
    low, high = figures["accuracy_95"]
    assert f"{100 * figures['accuracy']:.1f} % of 24 test photos are classified correctly" in said
    assert f"(95 % interval {100 * low:.1f} % to {100 * high:.1f} %)" in said
    assert "would be right in 25.0 %" in said
    before, after = figures["uncalibrated"]["expected_calibration_error"], figures["expected_calibration_error"]
    assert f"is {100 * before:.1f} % before and {100 * after:.1f} % after temperature scaling" in said
    assert f"logits are divided by {small_run.metrics['best']['temperature']:.3f}" in said
    assert 'base = "mobilenet_0.25"' in said
    assert small_run.environment["versions"]["keras"] in said
    # A picture and its heat for each mistake.
    pictures = [each["src"] for each in Elements(page).named("img")]
    assert len(pictures) >= 2 * small_run.mistakes["counts"]["mistakes"]


def test_the_report_is_made_again_from_the_run_folder_alone_and_is_the_same(small_run, tmp_path):
    is_made_again(small_run, tmp_path)


def test_the_probe_is_what_fine_tuning_is_compared_with(pretrained_run):
    said = words(pretrained_run.report_html.read_text())
    head = max(float(row["val_accuracy"]) for row in pretrained_run.log if row["phase"] == "head")
    assert f"the frozen base alone, with a solved head, reaches {100 * head:.1f} %" in said


def test_names_and_texts_of_the_data_are_escaped(make_run):
    findings = [Finding("damaged", ("<b>/<img src=x>.jpg",), "<i>broken</i>"), Finding("new kind", ("x",), "")]
    run = make_run("<script>x</script>".replace("/", ""), classes=HOSTILE, findings=findings, right=1.0)
    page = report.page(run)
    assert loads_nothing(page)
    said = words(page)
    assert "<script>alert(1)</script>" in said
    assert "<b>/<img src=x>.jpg (<i>broken</i>)" in said
    # What turns the reading direction is shown as an escape.
    assert "\u202e" not in page
    assert not Elements(page).named("b")[0]


def test_the_report_of_ten_thousand_photos_in_a_hundred_classes_stays_small(make_run):
    names = [f"class {number}" for number in range(100)]
    page = report.page(make_run(classes=names, photos=10_000)).encode()
    # Its pictures are noise, which is the worst that can come.
    assert page.count(b"data:image/webp") == 24 * 3
    assert len(page) < 5_000_000


def test_every_photo_right_is_no_mistake_and_no_error(make_run):
    said = words(report.page(make_run(classes=["a", "b"], right=90)))
    assert "100.0 % of 200 test photos" in said
    assert "There are none: every test photo is classified correctly." in said
    assert "None: no validation or test photo is answered otherwise with confidence." in said


@pytest.mark.parametrize("head", ["svm", "knn"])
def test_what_a_head_does_not_have_is_left_out_with_the_reason(head, digits, small_run, tmp_path):
    recipe = kerastk.Finetune(data=str(digits), weights=str(small_run.path), head=head, runs=str(tmp_path), threads=2)
    run = kerastk.train(recipe, show=False)
    said = words(run.report_html.read_text())
    assert "there is nothing to calibrate" in said
    assert ("A support vector machine gives no probabilities" in said) == (head == "svm")
    assert run.mistakes["explained"] == (head == "svm")
    assert "there are no epochs to draw" in said
    assert "uncalibrated" not in run.metrics["test"]


def test_a_run_of_an_earlier_version_has_a_report_of_what_it_kept(make_run):
    run = make_run(classes=["a", "b"], right=1)
    run.mistakes_json.unlink()
    metrics = run.metrics
    for split in ("validation", "test"):
        del metrics[split]["uncalibrated"], metrics[split]["reliability"]
    del metrics["seconds"]["looking"], metrics["seconds"]["decoding"]
    run.write_metrics(metrics)
    said = words(report.page(run))
    assert said.count("an earlier version of kerastk may have made it") == 3
    assert "of 200 test photos are classified correctly" in said


def test_a_run_without_a_test_split_says_so(make_run):
    run = make_run(classes=["a", "b"], right=1)
    metrics = run.metrics
    del metrics["test"]
    run.write_metrics(metrics)
    said = words(report.page(run))
    assert "of 200 validation photos are classified correctly" in said
    assert "There is no test split" in said


def test_splits_that_came_with_the_data_have_no_seed(make_run):
    run = make_run(classes=["a", "b"], right=1)
    assert "split 70/15/15 by content, seed 0" in words(report.page(run))
    data = json.loads(run.data_json.read_text())
    # train/ and val/ came, and 95/5 said that no test is wanted.
    run.data_json.write_text(json.dumps({**data, "split": "95/5", "split_seed": None}))
    said = words(report.page(run))
    assert "the splits came with the data" in said
    assert "seed None" not in said


def test_an_interrupted_run_has_no_report_yet(make_run):
    run = make_run(classes=["a", "b"])
    run.metrics_json.unlink()
    with pytest.raises(RunError, match=r"has no metrics\.json: the run did not come so far"):
        report.page(run)


def picture(size):
    return base64.b64encode(to_webp(np.zeros((size, size, 3), np.uint8))).decode()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mistakes.json", lambda it: it["photos"][0].update(picture="javascript:alert(1)")),
        ("mistakes.json", lambda it: it["photos"][0].update(picture=picture(1000))),
        ("mistakes.json", lambda it: it["photos"][0].update(picture=base64.b64encode(b"<svg onload=x>").decode())),
        ("mistakes.json", lambda it: it["photos"][0].update(heat=[[0.0] * 200] * 200)),
        ("mistakes.json", lambda it: it["photos"][0].update(heat=[[1e9]])),
        ("mistakes.json", lambda it: it["photos"][0].update(probability="high")),
        ("mistakes.json", lambda it: it.update(mistakes=[99])),
        ("mistakes.json", lambda it: it.update(photos=it["photos"] * 100)),
        ("metrics.json", lambda it: it["test"].update(accuracy=float("nan"))),
        ("metrics.json", lambda it: it["test"].update(confusion=[[1]])),
        ("metrics.json", lambda it: it["test"].update(photos=0)),
        ("metrics.json", lambda it: it["best"].update(temperature=0)),
        ("data.json", lambda it: it.update(counts=[])),
        ("data.json", lambda it: it["files"].append("x")),
        ("labels.json", lambda it: it.update(classes=["a", "a"])),
        ("environment.json", lambda it: it.update(versions=["3.15"])),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_file_that_says_what_it_cannot_is_one_line(name, change, make_run):
    run = make_run(classes=["a", "b"], right=1)
    spoil(run, name, change)
    with pytest.raises(RunError, match=rf"{name} is damaged\.$"):
        report.page(run)


def test_a_fault_of_the_report_costs_no_run_and_is_not_silent(digits, tmp_path, monkeypatch, capsys):
    from tests.training.test_trainer import recipe

    def broken(*_):
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(report, "page", broken)
    run = kerastk.train(recipe(digits, tmp_path, epochs=1))
    assert run.complete
    assert not run.report_html.exists()
    said = " ".join(capsys.readouterr().out.split())
    assert f"no report; `kerastk report {run.path}` tries again (ZeroDivisionError: a fault)" in said
    monkeypatch.undo()
    # Either command makes it.
    assert CliRunner().invoke(commands, ["report", str(run.path)], catch_exceptions=False).exit_code == 0
    made = run.report_html.read_bytes()
    run.report_html.unlink()
    kerastk.resume(run.path, show=False)
    assert run.report_html.read_bytes() == made


def test_the_page_in_a_browser(small_run, make_run, tmp_path):
    looks_right(small_run, "report", height=3000)
    many = make_run(classes=[*HOSTILE, *(f"class {number}" for number in range(60))], photos=900)
    many.write_report(report.page(many))
    fits_a_phone(tmp_path, small_run, many)
