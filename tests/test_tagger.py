import json
import subprocess
import sys

import pytest

import kerastk
from kerastk.cli import main
from kerastk.errors import DataError, RunError
from kerastk.tagger import Span, lines

TEXT = "Ana Lopes flew from Porto to Lagos with Kestrel Airways.  She isn't back! 😀 Yours, Bo Li"


@pytest.fixture(scope="module")
def tagger(tagger_run):
    return kerastk.load(tagger_run.path)


def command(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["kerastk", *map(str, words)])
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_text_gives_spans_at_their_places(tagger):
    spans = tagger(TEXT)
    assert spans
    assert all(isinstance(span, Span) and TEXT[span.start : span.end] == span.text for span in spans)
    assert all(span.label in ("PER", "LOC", "ORG") and 0 < span.probability <= 1 for span in spans)
    assert [span.start for span in spans] == sorted(span.start for span in spans)
    assert tagger("") == tagger("  \n ") == []


def test_words_give_tags_in_the_spelling_of_the_training_file(tagger):
    words = ["Ana", "Lopes", "flew", "from", "Porto"]
    tags = tagger(words)
    assert len(tags) == len(words)
    assert {tag.partition("-")[0] for tag in tags} <= {"B", "I", "O"}
    assert tagger([]) == []


def test_many_texts_get_the_answers_that_each_gets_alone(tagger):
    texts = [TEXT, "", "Bo Li lives in Oslo.", "no names here", "word " * 700, TEXT.upper()]
    together = list(tagger.stream(texts))
    for text, found in zip(texts, together, strict=True):
        alone = tagger(text)
        assert [span[:4] for span in alone] == [span[:4] for span in found]
        assert [span.probability for span in alone] == pytest.approx([span.probability for span in found], abs=1e-4)


def test_the_stream_takes_endless_texts_in_pieces(tagger):
    taken = []

    def texts():
        for number in range(10_000):
            taken.append(number)
            yield "Bo"

    next(tagger.stream(texts()))
    assert len(taken) < 10_000


def test_predict_prints_spans_of_a_text(tagger_run, monkeypatch, capsys):
    code, out, _ = command(monkeypatch, capsys, "predict", tagger_run.path, "--text", TEXT)
    assert code == 0
    rows = [line.split("\t") for line in out.splitlines()]
    assert [TEXT[int(start) : int(end)] for start, end, *_ in rows] == [row[-1] for row in rows]


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_predict_writes_files(tagger_run, tmp_path, monkeypatch, capsys, ending):
    (tmp_path / "notes.txt").write_text(f"{TEXT}\n\nBo Li\n", encoding="utf-8")
    out = tmp_path / f"tags.{ending}"
    code, said, _ = command(monkeypatch, capsys, "predict", tagger_run.path, tmp_path / "notes.txt", "--out", out)
    assert code == 0
    assert said.startswith("3 texts, ")
    if ending == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert [(row["line"], row["text"]) for row in rows] == [(1, TEXT), (2, ""), (3, "Bo Li")]
        assert all(row["text"][span["start"] : span["end"]] == span["text"] for row in rows for span in row["spans"])
    else:
        assert out.read_text(encoding="utf-8").splitlines()[0] == "path,line,start,end,label,probability,text"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give either --text or files"),
        (["--text", "a", "b.txt"], "give either --text or files"),
        (["--text", "a", "--top", "2"], "--top has no effect on a tagger"),
        (["--text", "a", "--tta", "mirror"], "--tta has no effect on a tagger"),
        (["--text", "a", "--uncalibrated"], "--uncalibrated has no effect on a tagger"),
        (["--text", "a", "--out", "a.parquet"], ".csv"),
        (["missing.txt"], "no file 'missing.txt'"),
    ],
)
def test_predict_refuses_in_one_line(tagger_run, monkeypatch, capsys, words, said):
    code, _, err = command(monkeypatch, capsys, "predict", tagger_run.path, *words)
    assert code != 0
    assert said in err
    assert len(err.splitlines()) == 1


def test_text_is_not_for_photos(small_run, monkeypatch, capsys):
    code, _, err = command(monkeypatch, capsys, "predict", small_run.path, "--text", "a")
    assert code != 0
    assert "--text is for a tagger" in err


def test_lines_tell_what_is_no_text(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"good\nb\xffad\n")
    with pytest.raises(DataError, match=r"bad.txt:\d+: not UTF-8"):
        list(lines([tmp_path / "bad.txt"]))


def test_evaluate_says_what_was_trained_on(tagger_run, names, tmp_path, monkeypatch, capsys):
    out = tmp_path / "figures.json"
    code, said, _ = command(monkeypatch, capsys, "evaluate", tagger_run.path, names, "--out", out)
    assert code == 0
    figures = json.loads(out.read_text())
    of_test = len([row for row in tagger_run.data["files"] if row["split"] == "test"])
    assert figures["sentences"] - figures["trained_on"] == of_test == figures["unseen"]["sentences"]
    assert figures["unseen"]["f1"] == pytest.approx(tagger_run.metrics["test"]["f1"], abs=0.01)
    assert "flatter it" in said
    code, _, err = command(monkeypatch, capsys, "evaluate", tagger_run.path, names, "--assert-f1", "1")
    assert code == 1
    assert "below the demanded 1" in err


def test_a_tagger_has_no_calibration_to_undo(tagger_run):
    with pytest.raises(RunError, match="nothing to undo"):
        kerastk.load(tagger_run.path, calibrated=False)


def test_the_run_folder_alone_is_needed(tagger_run, tmp_path):
    """Moved away, and asked by a process that knows nothing else."""
    import shutil

    shutil.copytree(tagger_run.path, tmp_path / "moved")
    code = "import kerastk, sys; print(kerastk.load(sys.argv[1])('Bo Li lives in Oslo.'))"
    done = subprocess.run([sys.executable, "-c", code, "moved"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(kerastk.load(tagger_run.path)("Bo Li lives in Oslo."))
