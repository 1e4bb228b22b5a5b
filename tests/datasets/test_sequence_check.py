import pytest

from kerastk.datasets.sequence_check import KINDS, check_sentences
from kerastk.datasets.sequence_data import look_at
from kerastk.datasets.sequences import open_sentences


@pytest.fixture
def looked(tmp_path):
    """A look at files from their content, by the name of their split."""

    def call(**contents):
        files = {}
        for name, content in contents.items():
            suffix = "jsonl" if content.startswith("{") else "conll"
            path = tmp_path / f"{name}.{suffix}"
            path.write_text(content)
            files[name] = open_sentences(path)
        return check_sentences(files)

    return call


def found(look, kind):
    """(places without their folder, text) of the findings of a kind."""
    return [
        ([path.rpartition("/")[2] for path in finding.paths], finding.text)
        for finding in look.findings
        if finding.kind == kind
    ]


def many(*sentences, times=12):
    """Sentences such as "a/O b/B-x" in columns, each so often."""
    blocks = ["\n".join(word.replace("/", "\t") for word in each.split()) for each in sentences]
    return "\n\n".join(block for block in blocks for _ in range(times)) + "\n"


def test_good_data_has_no_findings_and_its_figures(looked):
    look = looked(
        train=many("Ann/B-per Lee/I-per is/O", "in/O Rome/B-loc"),
        val=many("Ann/B-per Lee/I-per left/O Oslo/B-loc", times=1),
    )
    assert look.findings == []
    assert (look.scheme, look.tags) == ("iob2", ["O", "B-loc", "B-per", "I-per"])
    train, val = look.facts["train"], look.facts["val"]
    assert (train.sentences, train.tokens, train.longest, train.labels) == (24, 60, 3, {"loc": 12, "per": 12})
    assert train.tags["I-per"] == 12
    assert (train.unseen_words, train.unseen_spans) == (None, None)
    # "left" and "Oslo" of four words; "Oslo" of two spans.
    assert (val.unseen_words, val.unseen_spans) == (0.5, 0.5)


def test_illegal_transitions_are_told_with_their_lines(looked):
    content = "a\tO\nb\tI-per\n\n# comment = 1\nc\tB-loc\nd\tI-per\ne\tE-per\n\n" + many(
        "a/B-per b/I-per", "c/B-loc x/O"
    )
    assert found(looked(train=content), "illegal") == [
        (["train.conll:2"], "I-per after O (iob2)"),
        (["train.conll:6"], "I-per after B-loc (iob2)"),
        (["train.conll:7"], "'E-per' is no tag of iob2 (iob2)"),
    ]


def test_thousands_of_illegal_transitions_are_counted(looked):
    look = looked(train=many("a/O b/I-x", times=1500) + "\n" + many("c/B-x d/I-x", times=1600))
    illegal = found(look, "illegal")
    assert len(illegal) == 1001
    assert illegal[-1] == (["train.conll"], "and 500 more")


def test_sentences_of_the_test_set_in_training_are_counted(looked):
    look = looked(
        train=many("a/O b/B-x", "c/O d/B-x", "e/O"),
        val=many("c/O d/B-x", times=1),
        test=many("a/O b/B-x", "z/O f/B-x", times=1),
    )
    assert found(look, "leak") == [
        (["val.conll:1", "train.conll:37"], "1 of 1 sentences of val (100.0 %) are in train, too"),
        (["test.conll:1", "train.conll:1"], "1 of 2 sentences of test (50.0 %) are in train, too"),
    ]


def test_labels_that_training_lacks_or_hardly_has(looked):
    look = looked(
        train=many("a/B-x b/O") + "\n" + many("c/B-rare", times=3), test=many("d/B-new e/I-new f/B-x", times=1)
    )
    assert found(look, "unseen-label") == [(["test.conll:1"], "new: 2 words")]
    assert found(look, "rare-label") == [(["train.conll"], "rare: 3")]


def test_plain_labels_have_figures_and_findings_too(looked):
    look = looked(train=many("the/DET cat/NOUN"), test=many("a/DET dog/NOUN runs/VERB", times=1))
    assert look.scheme == "plain"
    assert look.facts["train"].labels == {"DET": 12, "NOUN": 12}
    assert (look.facts["test"].unseen_words, look.facts["test"].unseen_spans) == (1.0, None)
    assert found(look, "unseen-label") == [(["test.conll:3"], "VERB: 1 words")]


def test_the_same_words_tagged_differently(looked):
    look = looked(train=many("a/O b/B-x", times=10) + "\n" + many("a/O b/O", times=1))
    assert found(look, "two-taggings") == [(["train.conll:1", "train.conll:31"], "'b' is B-x and O")]


def test_a_file_in_another_scheme_is_told_and_not_found_illegal(looked):
    look = looked(
        train=many("a/B-x b/I-x c/O"), val=many("a/B-x b/E-x c/S-x", times=2), test=many("a/O b/B-x", times=1)
    )
    assert found(look, "scheme") == [(["val.conll"], "iobes beside iob2")]
    assert found(look, "illegal") == []


def test_what_else_is_worth_telling(looked):
    look = looked(
        train='{"text": "Ann Lee", "spans": [[0, 2, "per"]]}\n' * 12,
        test="a\tx\tO\n" * 300,
    )  # fmt: skip
    assert len(found(look, "span-border")) == 12
    assert found(look, "unused-column") == [(["test.conll"], "column 2, such as 'x'")]
    assert found(look, "no-spans") == [(["test.conll"], "300 words, all of them O")]
    assert found(look, "long") == [(["test.conll:1"], "1 of up to 300 words")]
    assert {finding.kind for finding in look.findings} <= KINDS.keys()


@pytest.mark.parametrize("name", ["wnut17", "atis"])
def test_real_corpora_have_no_illegal_transitions(name, shared):
    folder = shared / "data" / "tagging" / name
    if not folder.exists():
        pytest.skip(f"no {name} in the folder of shared data")
    look = look_at({"train": folder / "train.conll", "val": folder / "dev.conll", "test": folder / "test.conll"})
    assert found(look, "illegal") == []
    leaks = [text for _, text in found(look, "leak")]
    assert (
        leaks
        == {
            "wnut17": [],
            "atis": [
                "52 of 500 sentences of val (10.4 %) are in train, too",
                "13 of 893 sentences of test (1.5 %) are in train, too",
                "6 of 893 sentences of test (0.7 %) are in val, too",
            ],
        }[name]
    )
