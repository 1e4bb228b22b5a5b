import itertools
import json
import random
from collections import Counter

import pytest

from kerastk.datasets import manifest as module
from kerastk.datasets.check import check
from kerastk.datasets.files import Finding
from kerastk.datasets.manifest import settle
from kerastk.datasets.source import open_source
from kerastk.errors import DataError

THIRDS = (0.7, 0.15, 0.15)
USUAL = {"split": None, "fractions": THIRDS, "split_seed": None, "strict": False, "max_bad": 0.01}


def settled(look, **options):
    return settle(look, **(USUAL | options))


def of(classes, prefix=""):
    """Rows of so many photos of each class."""
    return [(f"{prefix}{name}/{number}.png", name) for name, count in classes.items() for number in range(count)]


def given(classes, splits):
    """Rows of so many photos of each class in each given split."""
    return [
        (f"{split}/{name}/{number}.png", name, split)
        for split, share in splits.items()
        for name, count in classes.items()
        for number in range(int(share * count))
    ]


def sides(manifest):
    """Each photo's split, by SHA-256."""
    return {photo.sha256: name for name, photos in manifest.splits.items() for photo in photos}


def sizes(manifest):
    return {name: len(photos) for name, photos in manifest.splits.items()}


def bad(count, kind="damaged"):
    return [Finding(kind, (f"cat/bad{number}.jpg",), "cut short") for number in range(count)]


# Cutting.


def test_the_split_is_of_the_right_size_and_stratified(looked):
    manifest = settled(looked(of({"cat": 100, "dog": 200, "elk": 40})))
    assert sizes(manifest) == {"train": 238, "val": 51, "test": 51}
    assert manifest.counts("val") == manifest.counts("test") == {"cat": 15, "dog": 30, "elk": 6}
    assert manifest.counts("train") == {"cat": 70, "dog": 140, "elk": 28}
    assert manifest.split == "70/15/15"
    assert manifest.notes == []
    everything = [photo.path for photos in manifest.splits.values() for photo in photos]
    assert len(everything) == len(set(everything)) == 340
    for photos in manifest.splits.values():
        assert [photo.path for photo in photos] == sorted(photo.path for photo in photos)


def test_a_split_without_test(looked):
    manifest = settled(looked(of({"cat": 100, "dog": 20})), split="85/15", fractions=(0.85, 0.15, 0.0))
    assert sizes(manifest) == {"train": 102, "val": 18, "test": 0}
    assert manifest.counts("val") == {"cat": 15, "dog": 3}
    assert any("no test split" in note for note in manifest.notes)
    assert manifest.split == "85/15"


def test_the_split_depends_on_its_seed(looked):
    look = looked(of({"cat": 60, "dog": 60}))
    assert sides(settled(look)) == sides(settled(look))
    other = settled(look, split_seed=1)
    assert sides(other) != sides(settled(look))
    assert sizes(other) == sizes(settled(look))
    assert other.split_seed == 1


def test_the_split_does_not_depend_on_order_or_names_of_files(looked, sha):
    rows = [(f"{'cd'[n % 2]}/{n}.png", ("cat", "dog")[n % 2], None, sha(n), sha(n - n % 3)) for n in range(90)]
    expected = settled(looked(rows))
    shuffled = random.Random(0).sample(rows, len(rows))
    renamed = [(f"else/{random.Random(path).random()}.jpg", *rest) for path, *rest in rows]
    for other in (shuffled, renamed, rows[::-1]):
        manifest = settled(looked(other))
        assert sides(manifest) == sides(expected)
        assert manifest.sha256 == expected.sha256
    assert settled(looked(rows), split_seed=9).sha256 != expected.sha256


def test_the_split_of_one_class_does_not_depend_on_the_others(looked, sha):
    cats = [(f"cat/{n}.png", "cat", None, sha(n)) for n in range(40)]
    dogs = [(f"dog/{n}.png", "dog", None, sha(100 + n)) for n in range(40)]
    whole, fewer = sides(settled(looked(cats + dogs))), sides(settled(looked(cats + dogs[:13])))
    assert all(whole[sha(n)] == fewer[sha(n)] for n in range(40))


@pytest.mark.parametrize("seed", range(5))
def test_copies_stay_together(looked, sha, seed):
    rows = [(f"{n}.png", ("cat", "dog")[n // 4 % 2], None, sha(n), sha(n - n % 4)) for n in range(160)]
    rows += [(f"again{n}.png", ("cat", "dog")[n // 4 % 2], None, sha(n), sha(n - n % 4)) for n in range(0, 160, 4)]
    manifest = settled(looked(rows), split_seed=seed)
    side = {}
    for name, photos in manifest.splits.items():
        for photo in photos:
            assert side.setdefault(photo.group, name) == name
    assert Counter(side.values()).keys() == {"train", "val", "test"}
    assert sum(sizes(manifest).values()) == 200
    assert 25 <= sizes(manifest)["val"] <= 40


def test_copies_under_two_labels_stay_together(looked, sha):
    rows = [(f"cat/{n}.png", "cat", None, sha(n)) for n in range(20)] + [
        (f"dog/{n}.png", "dog", None, sha(n)) for n in range(10, 30)
    ]
    manifest = settled(looked(rows))
    sets = [{photo.sha256 for photo in photos} for photos in manifest.splits.values()]
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(sets, 2))
    assert sum(sizes(manifest).values()) == 40


def test_near_copies_of_real_files_stay_together(tree, picture, encode):
    files = {}
    for number in range(24):
        name, pixels = ("cat", "dog")[number % 2], picture(number, width=160, height=120)
        files |= {f"{name}/{number}.png": encode(pixels), f"{name}/{number}.jpg": encode(pixels, "JPEG", quality=60)}
    manifest = settled(check(open_source(tree(files))))
    for photos in manifest.splits.values():
        numbers = Counter(photo.path.split("/")[1].split(".")[0] for photo in photos)
        assert set(numbers.values()) == {2}
    assert sum(sizes(manifest).values()) == 48


def test_a_class_that_is_too_small_is_named(looked, sha):
    with pytest.raises(DataError, match=r"class 'elk' has 2 different photos; .* at least 3"):
        settled(looked(of({"cat": 20, "elk": 2})))
    assert sizes(settled(looked(of({"cat": 20, "elk": 2})), fractions=(0.85, 0.15, 0.0)))["val"] == 4
    copies = [(f"elk/{n}.png", "elk", None, sha(1000)) for n in range(9)]
    with pytest.raises(DataError, match="class 'elk' has 1 different photos"):
        settled(looked(of({"cat": 20}) + copies))


def test_the_smallest_class_that_can_be_split_is_on_every_side(looked):
    manifest = settled(looked(of({"cat": 3, "dog": 100})))
    assert all(manifest.counts(name)["cat"] == 1 for name in ("train", "val", "test"))


def test_every_side_gets_a_photo_of_every_class_whatever_the_shares(looked):
    manifest = settled(looked(of({"cat": 4, "dog": 4})), split="10/45/45", fractions=(0.1, 0.45, 0.45))
    assert [manifest.counts(name)["cat"] for name in ("train", "val", "test")] == [1, 2, 1]


# Splits that come with the data.


def test_given_splits_are_kept(looked):
    look = looked(given({"cat": 20, "dog": 10}, {"train": 1, "val": 0.5, "test": 0.2}))
    manifest = settled(look)
    assert sizes(manifest) == {"train": 30, "val": 15, "test": 6}
    assert {photo.split for photo in manifest.splits["val"]} == {"val"}
    assert manifest.split is None
    assert manifest.notes == []
    assert manifest.split_seed is None
    with pytest.raises(DataError, match="split-seed"):
        settled(look, split_seed=5)


def test_a_split_that_would_not_be_used_is_refused(looked):
    look = looked(given({"cat": 20, "dog": 10}, {"train": 1, "val": 0.5, "test": 0.2}))
    with pytest.raises(DataError, match="train, val, test; --split 80/10/10 would not be used"):
        settled(look, split="80/10/10", fractions=(0.8, 0.1, 0.1))


def test_beside_train_and_val_85_15_means_no_test_split(looked):
    look = looked(given({"cat": 20, "dog": 10}, {"train": 1, "val": 0.5}))
    manifest = settled(look, split="85/15", fractions=(0.85, 0.15, 0.0))
    assert sizes(manifest) == {"train": 30, "val": 15, "test": 0}
    assert manifest.split == "85/15"


@pytest.mark.parametrize(
    ("there", "cut", "expected"),
    [
        (("train", "test"), "val", {"train": 164, "val": 36, "test": 200}),
        (("train", "val"), "test", {"train": 164, "val": 200, "test": 36}),
        (("train",), "val and test", {"train": 140, "val": 30, "test": 30}),
    ],
)
def test_missing_splits_are_cut_from_train(looked, there, cut, expected):
    manifest = settled(looked(given({"cat": 100, "dog": 100}, dict.fromkeys(there, 1))))
    assert sizes(manifest) == expected
    assert f"{cut} cut from train" in manifest.notes
    assert manifest.split == "70/15/15"
    for name in there[1:]:
        assert {photo.split for photo in manifest.splits[name]} == {name}
    for name in cut.split(" and "):
        assert {photo.split for photo in manifest.splits[name]} == {"train"}
        assert len(set(manifest.counts(name).values())) == 1


def test_a_split_may_be_given_where_one_is_missing(looked):
    look = looked(given({"cat": 100, "dog": 100}, {"train": 1, "test": 1}))
    assert sizes(settled(look, split="90/10", fractions=(0.9, 0.1, 0.0))) == {"train": 180, "val": 20, "test": 200}


def test_train_must_be_there(looked):
    with pytest.raises(DataError, match="test and val but no train split"):
        settled(looked(given({"cat": 5, "dog": 5}, {"val": 1, "test": 1})))


def test_a_class_without_training_photos_is_named(looked):
    rows = given({"cat": 20, "dog": 20}, {"train": 1, "val": 1, "test": 1})
    with pytest.raises(DataError, match="class 'dog' has no training photos"):
        settled(looked([row for row in rows if row[1:] != ("dog", "train")]))


@pytest.mark.parametrize(
    ("one", "other", "stays"), [("train", "test", "test"), ("train", "val", "val"), ("val", "test", "test")]
)
def test_of_a_leak_the_side_judged_later_stays(looked, sha, one, other, stays):
    rows = given({"cat": 20, "dog": 20}, {"train": 1, "val": 0.5, "test": 0.5})
    rows += [(f"{one}/cat/leak-a.png", "cat", one, sha(900), sha(900)),
             (f"{other}/cat/leak-b.png", "cat", other, sha(901), sha(900))]  # fmt: skip
    manifest = settled(looked(rows))
    sides_of = {photo.path: name for name, photos in manifest.splits.items() for photo in photos}
    assert sides_of[f"{stays}/cat/leak-b.png"] == stays
    assert f"{one}/cat/leak-a.png" not in sides_of
    assert [finding.paths for finding in manifest.set_aside] == [(f"{one}/cat/leak-a.png",)]
    assert f"{other}/cat/leak-b.png in {other}" in manifest.set_aside[0].text


def test_copies_inside_a_given_split_are_no_leak(looked, sha):
    rows = given({"cat": 20, "dog": 20}, {"train": 1, "val": 0.5, "test": 0.5})
    rows += [(f"train/cat/{name}.png", "cat", "train", sha(900)) for name in "ab"]
    assert sizes(settled(looked(rows))) == {"train": 42, "val": 20, "test": 20}


def test_missing_splits_are_cut_after_leaks_are_gone(looked, sha):
    rows = given({"cat": 20, "dog": 20}, {"train": 1, "test": 1})
    rows += [("train/cat/a.png", "cat", "train", sha(900)), ("test/cat/b.png", "cat", "test", sha(900))]
    manifest = settled(looked(rows))
    assert sum(sizes(manifest).values()) == 81
    assert sides(manifest)[sha(900)] == "test"


# Refusals.


def test_too_many_bad_photos_stop_the_run(looked):
    rows = of({"cat": 98, "dog": 100})
    settled(looked(rows, bad(2)), max_bad=0.01)
    with pytest.raises(DataError, match=r"3 of 201 photos .*1\.5 %.*cat/bad0.jpg: cut short.*--max-bad"):
        settled(looked(rows, bad(3)), max_bad=0.01)
    with pytest.raises(DataError, match="1 of 199"):
        settled(looked(rows, bad(1)), max_bad=0)


@pytest.mark.parametrize("count", [1, 3, 50, 333, 2000])
def test_the_share_that_the_refusal_suggests_is_enough(looked, count):
    look = looked(of({"cat": 20, "dog": 20}), bad(count))
    with pytest.raises(DataError) as caught:
        settled(look, max_bad=0.0)
    suggested = float(str(caught.value).split("--max-bad ")[1].rstrip("."))
    assert suggested <= 1
    settled(look, max_bad=suggested)


def test_files_that_are_no_lost_photos_do_not_count_as_bad(looked):
    harmless = ["other-file", "hidden", "no-class", "copies", "suffix", "tiny-class", "not-a-file", "empty-folder"]
    findings = [finding for kind in harmless for finding in bad(50, kind)]
    manifest = settled(looked(of({"cat": 20, "dog": 20}), findings), max_bad=0)
    assert manifest.findings == findings
    assert {finding.kind for finding in manifest.set_aside} == {"other-file", "no-class", "not-a-file"}


def test_strict_refuses_any_finding(looked):
    rows = of({"cat": 20, "dog": 20})
    settled(looked(rows), strict=True)
    for kind in ("hidden", "copies", "imbalance", "damaged"):
        with pytest.raises(DataError, match=r"strict: 1 findings.*cat/bad0.jpg"):
            settled(looked(rows, bad(1, kind)), strict=True, max_bad=1)


def test_one_class_is_no_classification(looked):
    with pytest.raises(DataError, match=r"one class only.*'cat'"):
        settled(looked(of({"cat": 20})))


def test_a_class_without_a_readable_photo_is_named(looked):
    with pytest.raises(DataError, match="no readable photos in class 'elk'"):
        settled(looked(of({"cat": 20, "dog": 20}), classes=["cat", "dog", "elk"]))


# The record.


def test_data_json(looked, sha):
    look = looked([*of({"cat": 20, "dog": 10}), ("dog/caf\udce9\n.png", "dog", None, sha(500))], bad(1))
    manifest = settled(look, max_bad=0.5)
    content = json.loads(manifest.to_json())
    assert content["format"] == module.FORMAT
    assert content["classes"] == ["cat", "dog"]
    assert content["split"] == "70/15/15"
    assert content["sha256"] == manifest.sha256
    assert {row["sha256"]: row["split"] for row in content["files"]} == sides(manifest)
    assert {row["path"]: row["label"] for row in content["files"]} == {photo.path: photo.label for photo in look.photos}
    assert content["counts"]["train"] == dict(manifest.counts("train"))
    expected = {"kind": "damaged", "paths": ["cat/bad0.jpg"], "text": "cut short"}
    assert content["set_aside"] == content["findings"] == [expected]


def test_the_hash_of_the_data_is_of_content_labels_and_splits(looked, sha):
    rows = [(f"{n}.png", ("cat", "dog")[n % 2], None, sha(n)) for n in range(40)]
    one = settled(looked(rows)).sha256
    relabelled = [(path, "dog" if path == "0.png" else label, *rest) for path, label, *rest in rows]
    changed = [("0.png", "cat", None, sha(999)), *rows[1:]]
    classes = [(path, label.upper(), *rest) for path, label, *rest in rows]
    others = [settled(looked(each)).sha256 for each in (relabelled, changed, classes, rows[1:])]
    assert len({one, *others}) == 5
    assert settled(looked(rows)).sha256 == one


def test_the_same_photos_under_another_folder_name_split_alike(tree, picture, encode):
    files = {f"{'ab'[n % 2]}/{n}.png": encode(picture(n)) for n in range(30)}
    one = settled(check(open_source(tree(files, "one"))))
    renamed = {f"{path[0]}/photo-{len(files) - n}.png": data for n, (path, data) in enumerate(files.items())}
    other = settled(check(open_source(tree({f"inner/{path}": data for path, data in renamed.items()}, "other"))))
    assert sides(one) == sides(other)
    assert one.sha256 == other.sha256
