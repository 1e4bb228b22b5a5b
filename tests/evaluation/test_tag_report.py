import json

import pytest

from kerastk.datasets.files import Finding
from kerastk.errors import RunError
from kerastk.evaluation import report
from kerastk.evaluation.marked import marked
from kerastk.evaluation.tag_reading import Answered
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


def test_a_run_of_a_tagger_ends_with_its_report(tagger_run):
    page = tagger_run.report_html.read_text()
    assert loads_nothing(page)
    figures, said = tagger_run.metrics["test"], words(page)
    low, high = figures["f1_95"]
    assert f"F1 is {100 * figures['f1']:.1f} % on {figures['sentences']} test sentences" in said
    assert f"(95 % interval {100 * low:.1f} % to {100 * high:.1f} %)" in said
    assert f"{figures['right']} of {figures['spans']} spans are found" in said
    unseen = figures["seen"]["unseen"]
    assert f"unseen {unseen['spans']} {100 * unseen['recall']:.1f} %" in said
    facts = tagger_run.data["facts"]
    assert f"Of the test words {100 * facts['test']['unseen_words']:.1f} % are not in the training sentences" in said
    assert f"of the test spans {100 * facts['test']['unseen_spans']:.1f} %" in said
    for name, row in figures["types"].items():
        assert f"{name} {tagger_run.data['counts']['train'][name]} {row['spans']} " in said
    assert 'cell = "lstm"' in said
    assert tagger_run.environment["versions"]["keras"] in said
    # Curves of loss, F1 and learning rate, and the confusion matrix.
    assert page.count('role="img"') == 4


def test_the_report_is_made_again_from_the_run_folder_alone_and_is_the_same(tagger_run, tmp_path):
    is_made_again(tagger_run, tmp_path)


def test_every_kind_of_error_is_marked_above_and_below_the_words_and_told_in_words():
    sentence = Answered(
        words=(
            "Ana", "Lopes", "met", "the", "Bank", "of", "Porto", "in", "New", "York", "on", "Sunday", "in", "Rome"
        ),
        truth=("B-PER", "I-PER", "O", "O", "B-ORG", "I-ORG", "I-ORG", "O", "B-LOC", "I-LOC", "O", "O", "O", "B-LOC"),
        answer=("B-LOC", "I-LOC", "O", "O", "O", "O", "B-LOC", "O", "O", "B-LOC", "O", "B-ORG", "O", "O"),
        place="test.conll:7",
    )  # fmt: skip
    found = marked(sentence, "iob2")
    assert [(mark.kind, text) for mark, text in found.errors] == [
        ("type", "“Ana Lopes” is PER, and is answered LOC"),
        ("both", "“Bank of Porto” is ORG, and “Porto” is answered LOC"),
        ("boundary", "“New York” is LOC, and “York” is answered LOC"),
        ("spurious", "“Sunday” is answered ORG, and is nothing"),
        ("missed", "“Rome” is LOC, and nothing is answered"),
    ]
    above = [(each.text, each.truth.label, each.truth.mark.kind) for each in found.words if each.truth]
    assert above == [
        ("Ana", "PER", "type"), ("Lopes", "", "type"), ("Bank", "ORG", "both"), ("of", "", "both"),
        ("Porto", "", "both"), ("New", "LOC", "boundary"), ("York", "", "boundary"), ("Rome", "LOC", "missed"),
    ]  # fmt: skip
    below = [(each.text, each.answer.label, each.answer.mark.kind) for each in found.words if each.answer]
    assert below == [
        ("Ana", "LOC", "type"), ("Lopes", "", "type"), ("Porto", "LOC", "both"), ("York", "LOC", "boundary"),
        ("Sunday", "ORG", "spurious"),
    ]  # fmt: skip


def test_what_is_right_is_marked_as_that_and_a_second_answer_is_no_right_one():
    # Two answers in one span: the error pairs one of them with it, and the other is not right either.
    sentence = Answered(
        ("Bank", "of", "Rome", "Ana"), ("B-ORG", "I-ORG", "I-ORG", "B-PER"), ("B-ORG", "O", "B-LOC", "B-PER"), ""
    )
    found = marked(sentence, "iob2").words
    assert [each.answer.mark.kind for each in found if each.answer] == ["boundary", "boundary", "right"]
    assert found[3].truth.mark.kind == "right"


def test_of_a_long_sentence_the_words_around_its_errors_are_shown():
    tags = ["O"] * 200
    answer = ["O"] * 100 + ["B-PER"] + ["O"] * 99
    found = marked(Answered(tuple(map(str, range(200))), tuple(tags), tuple(answer), ""), "iob2").words
    assert [each.text for each in found] == ["…", *map(str, range(90, 111)), "…"]


def test_plain_tags_have_their_accuracy_and_no_spans(make_tagger_run):
    run = make_tagger_run(types=("DET", "NOUN", "VERB"), plain=True)
    page = report.page(run)
    assert loads_nothing(page)
    figures, said = run.metrics["test"], words(page)
    assert f"{100 * figures['token_accuracy']:.2f} % of 300 words in 60 test sentences get the right tag" in said
    known = [word in run.vocabulary["words"] for each in run.tags.split("\n\n")[:-1] for word in _first(each)]
    assert f"known {sum(known)} " in said
    assert f"unknown {300 - sum(known)} " in said
    assert f"Unknown words{100 - 100 * sum(known) / 300:.1f} %" in said
    assert "Tag by tag" in said
    assert "spans" not in said
    assert "is NOUN, and is answered DET" in said


def _first(block):
    return [line.split("\t")[0] for line in block.split("\n")]


def test_names_words_and_texts_of_the_data_are_escaped(make_tagger_run):
    types = [each.replace("\u202e", "") or "x" for each in HOSTILE]
    findings = [Finding("leak", ("<b>.conll:1",), "<i>text</i>"), Finding("new kind", ("x",), "")]
    run = make_tagger_run("<script>x<script>", types=types, words=HOSTILE, right=0.3, findings=findings)
    page = report.page(run)
    assert loads_nothing(page)
    said = words(page)
    assert "<script>alert(1)</script>" in said
    assert "<b>.conll:1 (<i>text</i>)" in said
    # What turns the reading direction is shown as an escape.
    assert "\u202e" not in page
    assert not Elements(page).named("img")


def test_every_span_right_is_no_error(make_tagger_run):
    said = words(report.page(make_tagger_run(right=1)))
    assert "F1 is 100.0 % on 60 test sentences" in said
    assert "Nothing: every span is found, and nothing else." in said
    assert "There are none: every test sentence is tagged as it should be." in said
    assert "No span is answered with another type." in said


def test_a_tagger_that_answers_nothing_has_a_report(make_tagger_run):
    run = make_tagger_run()
    content = "".join(
        f"{line.rsplit(chr(9), 1)[0]}\tO\n" if line else "\n" for line in run.tags.removesuffix("\n").split("\n")
    )
    run.predictions_conll.write_text(content)
    metrics = run.metrics
    zero = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "right": 0, "guessed": 0}
    for figures in (metrics["test"], metrics["validation"]):
        figures |= {**zero, "f1_95": [0.0, 0.0], "errors": dict.fromkeys(figures["errors"], 0) | {"missed": 120}}
        figures["types"] = {name: row | zero for name, row in figures["types"].items()}
        figures["seen"] = {name: row | zero for name, row in figures["seen"].items()}
        figures["confusion"] = {name: {"O": row["spans"]} for name, row in figures["types"].items()}
    run.write_metrics(metrics)
    said = words(report.page(run))
    assert "F1 is 0.0 %" in said
    assert "missed nothing was answered there 120 100 %" in said


def test_a_run_without_a_test_split_shows_its_validation_sentences(make_tagger_run):
    run = make_tagger_run()
    metrics, data = run.metrics, run.data
    del metrics["test"], data["facts"]
    run.write_metrics(metrics)
    files = [each | {"split": {"test": "val"}.get(each["split"], "train")} for each in data["files"]]
    run.write_data(json.dumps(data | {"files": files}))
    said = words(report.page(run))
    assert "on 60 validation sentences" in said
    assert "There is no test split: these are the figures of the sentences that chose the model" in said


def test_many_types_and_sentences_make_no_large_page(make_tagger_run):
    types = [f"kind-{number}" for number in range(300)]
    page = report.page(make_tagger_run(types=types, sentences=2000, right=0.2))
    assert page.count('class="tagged"') == 48
    assert len(page) < 1_500_000


def test_an_interrupted_run_has_no_report_yet(make_tagger_run):
    run = make_tagger_run()
    run.metrics_json.unlink()
    with pytest.raises(RunError, match=r"has no metrics\.json: the run did not come so far"):
        report.page(run)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("metrics.json", lambda it: it["test"].update(f1=float("nan"))),
        ("metrics.json", lambda it: it["test"].update(f1_95=[0.1])),
        ("metrics.json", lambda it: it["test"].update(spans=7)),
        ("metrics.json", lambda it: it["test"].update(tokens=0)),
        ("metrics.json", lambda it: it["test"]["types"]["PER"].update(right=10**6)),
        ("metrics.json", lambda it: it["test"]["errors"].pop("missed")),
        ("metrics.json", lambda it: it["test"].update(confusion={"PER": {"LOC": -1}})),
        ("metrics.json", lambda it: it["test"].pop("seen")),
        ("data.json", lambda it: it.update(counts=[])),
        ("data.json", lambda it: it["files"].append("x")),
        ("data.json", lambda it: it["facts"]["test"].update(unseen_words=2)),
        ("labels.json", lambda it: it.update(scheme="iob9")),
        ("labels.json", lambda it: it.update(scheme="plain")),
        ("labels.json", lambda it: it.update(classes=["a"] * 10_001)),
        ("vocabulary.json", lambda it: it.update(words="cat")),
        ("vocabulary.json", lambda it: it.update(word_length=10**9)),
        ("environment.json", lambda it: it.update(versions=["3.15"])),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_file_that_says_what_it_cannot_is_one_line(name, change, make_tagger_run):
    run = make_tagger_run()
    spoil(run, name, change)
    with pytest.raises(RunError, match=rf"{name} is damaged\.$"):
        report.page(run)


@pytest.mark.parametrize(
    "change",
    [
        lambda it: b"", lambda it: it[:-30], lambda it: b"x" + it, lambda it: it + it, lambda it: b"\xff" + it,
        lambda it: it.replace(b"\t", b" "), lambda it: it.replace(b"B-PER", b"B-" + b"x" * 2000),
        lambda it: it.replace(b"\n\n", b"\n"),
    ],
)  # fmt: skip
def test_predictions_that_are_not_those_of_the_data_are_refused(change, make_tagger_run):
    run = make_tagger_run()
    run.predictions_conll.write_bytes(change(run.predictions_conll.read_bytes()))
    with pytest.raises(RunError, match=r"predictions\.conll is damaged\.$"):
        report.page(run)


def test_the_vocabulary_of_another_run_does_not_belong_to_this_one(make_tagger_run):
    run = make_tagger_run()
    spoil(run, "vocabulary.json", lambda it: it["tags"].reverse())
    with pytest.raises(RunError, match=r"vocabulary.json and labels.json do not belong together"):
        report.page(run)


def test_the_page_in_a_browser(tagger_run, make_tagger_run, tmp_path):
    looks_right(tagger_run, "tag-report", height=6000)
    many = make_tagger_run(types=[*HOSTILE, *(f"type {number}" for number in range(40))], words=HOSTILE, right=0.3)
    many.write_report(report.page(many))
    fits_a_phone(tmp_path, tagger_run, many)
