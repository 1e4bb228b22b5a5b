import ast
import dataclasses
import itertools
import json

import pytest

from kerastk.datasets.schemes import spans
from kerastk.datasets.sequence_data import look_at, open_tagged, settle_sentences
from kerastk.datasets.vocabulary import Vocabulary
from kerastk.errors import DataError
from tests.test_imports import loaded_by

DEFAULTS = {
    "columns": None, "tag_column": None, "scheme": "iobes", "split": None, "fractions": (0.8, 0.1, 0.1),
    "split_seed": None, "strict": False, "max_words": 1000, "min_count": 1, "fold_digits": True, "lower": False,
    "word_length": 12,
    "batch_words": 64, "max_length": 16, "word_dropout": 0.1, "seed": 0,
}  # fmt: skip


def block(number):
    """A sentence of its own for each number: a person of two words, maybe a place."""
    place = f"Town{number}\tB-loc\n" if number % 2 else ""
    return f"Mr{number}\tB-per\nLee\tI-per\nsaw\tO\n{place}"


def written(numbers):
    return "\n".join(block(number) for number in numbers)


@pytest.fixture
def file(tmp_path):
    def call(content, name="train.conll"):
        (tmp_path / name).write_text(content)
        return tmp_path / name

    return call


def opened(path, **options):
    return open_tagged(path, **DEFAULTS | options)


def words(rows):
    return {sentence.tokens for sentence in rows.sentences}


def settled(path, **options):
    values = {
        "scheme": "iob2",
        "split": None,
        "fractions": (0.8, 0.1, 0.1),
        "split_seed": None,
        "strict": False,
    } | options
    return settle_sentences(look_at(path if isinstance(path, dict) else {"train": path}), **values)


def test_one_file_is_split_by_content_and_copies_stay_together(file):
    path = file(written([*range(100), *range(100), *range(20)]))
    data = opened(path)
    sides = [words(each) for each in (data.train, data.val, data.test)]
    assert all(not one & other for one, other in itertools.combinations(sides, 2))
    assert sum(map(len, sides)) == 100
    manifest = data.manifest
    assert sum(len(part) for part in manifest.splits.values()) == 220
    assert [len(manifest.splits[name]) for name in ("val", "test")] == pytest.approx([22, 22], abs=2)
    assert manifest.notes == [f"dev and test cut from {path}"]
    assert (manifest.split, manifest.split_seed) == ("80/10/10", 0)


def test_the_split_does_not_depend_on_the_order_of_the_file_but_on_the_seed(file):
    one = settled(file(written(range(80))))
    other = settled(file(written(reversed(range(80))), "other.conll"))
    assert one.sha256 == other.sha256
    third = settled(file(written(range(80))), split_seed=1)
    assert third.sha256 != one.sha256
    assert third.split_seed == 1


def test_files_of_ones_own_stay_as_they_are(file):
    train, dev, test = (file(written(numbers), f"{name}.conll")
                        for name, numbers in (("train", range(30)), ("dev", range(25, 35)), ("test", range(30)))
                        )  # fmt: skip
    data = opened(train, dev=dev, test=test)
    assert [len(rows.sentences) for rows in (data.train, data.val, data.test)] == [30, 10, 30]
    assert data.manifest.split is None
    assert data.manifest.split_seed is None
    assert {finding.kind for finding in data.look.findings} == {"leak"}
    with pytest.raises(DataError, match="dev and test are files of their own; --split 80/10/10 would not be used"):
        opened(train, dev=dev, test=test, split="80/10/10")
    with pytest.raises(DataError, match="--split-seed would not be used"):
        opened(train, dev=dev, test=test, split_seed=3)


def test_what_is_missing_is_cut_from_training(file):
    train, test = file(written(range(50))), file(written(range(60, 70)), "test.conll")
    manifest = settled({"train": train, "test": test})
    assert [len(manifest.splits[name]) for name in ("train", "val", "test")] == [44, 6, 10]
    assert manifest.notes == [f"dev cut from {train}"]
    without = settled(train, fractions=(0.9, 0.1, 0.0))
    assert [len(without.splits[name]) for name in ("train", "val", "test")] == [45, 5, 0]
    assert without.notes[-1].startswith("no test split")


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (None, ["O", "S-loc", "B-per", "E-per"]),
        ("iob2", ["O", "B-loc", "B-per", "I-per"]),
        ("iobes", ["O", "S-loc", "B-per", "E-per"]),
        ("bilou", ["O", "U-loc", "B-per", "L-per"]),
    ],
)
def test_tags_are_those_of_the_scheme_that_is_trained(scheme, expected, file):
    data = opened(file(written(range(60))), scheme=scheme)
    assert data.classes == expected == list(data.vocabulary.tags)
    target = data.manifest.scheme
    assert (target, data.manifest.source_scheme) == (scheme or "iobes", "iob2")
    for each in data.val.sentences:
        number = int(each.tokens[0][2:])
        labels = [span.label for span in spans(each.tags, target, strict=True)]
        assert labels == (["per", "loc"] if number % 2 else ["per"])


def test_a_file_in_another_scheme_has_the_same_spans(file):
    train = file(written(range(30)))
    dev = file("Mr1\tB-per\nX\tI-per\nLee\tE-per\nRome\tS-loc\n", "dev.conll")
    manifest = settled({"train": train, "val": dev}, fractions=(0.9, 0.1, 0.0))
    assert manifest.splits["val"][0].tags == ("B-per", "I-per", "I-per", "B-loc")


def test_json_lines_beside_columns(file):
    train = file(written(range(30)))
    dev = file(json.dumps({"text": "Mr1 Lee saw.", "spans": [[0, 7, "per"]]}) + "\n", "dev.jsonl")
    manifest = settled({"train": train, "val": dev}, fractions=(0.9, 0.1, 0.0))
    assert manifest.splits["val"][0].tags == ("B-per", "I-per", "O", "O")
    assert manifest.described == "columns word,tag (guessed); JSON lines"


def test_other_files_have_the_columns_that_were_guessed(file):
    train = file("".join(f"w{number} NN I-NP B-x\n\n" for number in range(20)))
    # By itself the second one would be taken for words and their chunks.
    dev = file("w1 NN I-NP O\nw2 NN I-NP O\n", "dev.conll")
    look = look_at({"train": train, "val": dev})
    assert [each.columns for each in look.files.values()] == [("word", "-", "-", "tag")] * 2


def test_the_manifest_tells_what_changed(file):
    before = settled(file(written(range(40))))
    recorded = json.loads(before.to_json())
    assert recorded["sha256"] == before.sha256
    assert before.changes(recorded) == []
    moved = settled(file(written(range(40)), "renamed.conll"))
    assert moved.changes(recorded) == []
    fewer = settled(file(written(range(1, 41)) + "\nX\tB-new\n"))
    changes = fewer.changes(recorded)
    assert changes[0] == "new tag 'B-new'"
    assert "sentences are new, such as" in changes[1]
    assert changes[2].startswith("1 sentences are gone or changed, such as")
    retagged = settled(file(written(range(40)).replace("saw\tO", "saw\tB-per", 1)))
    assert [each.split(" such")[0] for each in retagged.changes(recorded)] == [
        "1 sentences are new,", "1 sentences are gone or changed,"
    ]  # fmt: skip
    others = settled(file(written(range(40))), split_seed=9)
    assert others.changes(recorded) == ["sentences stand in other splits, or there are more or fewer copies"]


def test_the_record_has_the_words_of_each_split_and_what_training_has_not_seen(file):
    train, test = file(written(range(10))), file(written([1, 1, 77]) + "\nMr1\tB-loc\n", "test.conll")
    facts = json.loads(opened(train, test=test, fractions=(0.9, 0.1, 0), scheme="iob2").manifest.to_json())["facts"]
    assert list(facts) == ["train", "val", "test"]
    assert facts["train"]["words"] + facts["val"]["words"] == 35
    assert (facts["train"]["unseen_words"], facts["train"]["unseen_spans"]) == (None, None)
    # Mr77 and Town77 of 13 words; of 7 spans theirs, and Mr1, which is seen with another type and another length.
    assert facts["test"] == {"words": 13, "unseen_words": 2 / 13, "unseen_spans": 3 / 7}


def test_sentences_that_are_known_stay_in_their_splits(file):
    first = settled(file(written(range(40))))
    assigned = {each.sha256: name for name, part in first.splits.items() for each in part}
    again = settled(file(written(range(60))), split_seed=7, assigned=assigned)
    now = {each.sha256: name for name, part in again.splits.items() for each in part}
    assert now.items() >= assigned.items()
    assert len(now) == 60


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (written(range(30)), {"scheme": "iob3"}, "there is no scheme 'iob3'; there are iob1, iob2"),
        (written(range(30)), {"scheme": "plain"}, "the tags are iob2, which cannot be written as plain"),
        ("a\tDET\n\nb\tNOUN\n\nc\tX\n\nd\tX\n", {}, "the tags are plain, which cannot be written as iobes"),
        (written(range(2)), {}, "has 2 different sentences; a split into train, val, test needs at least 3."),
        ("a\tO\n\nb\tO\n\nc\tO\n\nd\tO\n", {}, "one tag only (O) in the training sentences"),
        ("a\n\nb\n\nc\n", {}, "has no tags, only words; name its columns, as in --columns word,-,tag."),
        (written(range(30)) + "\na\tI-x\n", {"strict": True}, "strict: 2 findings, the first: "),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(content, options, message, file):
    with pytest.raises(DataError) as caught:
        opened(file(content), **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tags_of_different_sorts_are_refused(file):
    train, dev = file(written(range(30))), file("a\tDET\nb\tNOUN\n", "dev.conll")
    with pytest.raises(
        DataError, match=r"the files have tags of different sorts: .*train\.conll iob2, .*dev\.conll plain"
    ):
        opened(train, dev=dev)


def test_long_sentences_are_trained_on_in_pieces_and_judged_whole(file):
    long = "".join(f"w{number}\tO\n" for number in range(40))
    data = opened(file(written(range(20)) + "\n" + long), dev=file(long.replace("w", "v"), "dev.conll"), max_length=16)
    [finding] = [each for each in data.manifest.findings if each.kind == "cut"]
    assert finding.text == "1 sentences of more than 16 words are trained on in pieces"
    assert max(data.train.sizes) == 16
    assert list(data.val.sizes) == [40]


def test_the_vocabulary_is_that_of_the_training_split_or_a_given_one(file):
    path = file(written(range(50)))
    data = opened(path, extra=["extra"], fold_digits=False)
    assert data.vocabulary.words[-1] == "extra"
    in_training = {word for each in data.manifest.splits["train"] for word in each.tokens}
    assert set(data.vocabulary.words) == in_training | {"extra"}
    given = dataclasses.replace(Vocabulary.from_json(data.vocabulary.to_json()), words=("Lee",))
    again = opened(path, vocabulary=given)
    assert again.vocabulary is given
    inputs, _ = again.val.batch(0, 0)
    assert set(inputs["words"].ravel().tolist()) == {0, 1, 2}


def test_reading_sentences_needs_no_keras():
    heavy = loaded_by("import kerastk.datasets.sequence_data, kerastk.evaluation.spans")
    # Grain imports jax by itself, where it is installed.
    assert not {"keras", "tensorflow", "matplotlib"} & set(ast.literal_eval(heavy))


def test_batches_of_all_splits_have_few_shapes_between_them(file):
    data = opened(file(written(range(200))))
    shapes = {tags.shape for rows in (data.train, data.val, data.test) for _, tags in rows.batches(0, 1)}
    assert shapes <= set(data.train.shapes)
