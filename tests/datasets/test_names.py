import re
import unicodedata
from collections import Counter
from pathlib import Path

DATA = Path(__file__).parents[2] / "data"
TEXT = (DATA / "names.conll").read_bytes().decode("utf-8")
README = (DATA / "README.md").read_text(encoding="utf-8")
SENTENCES = [[tuple(line.split("\t")) for line in block.split("\n")] for block in TEXT.strip("\n").split("\n\n")]
TYPES = {"PER", "LOC", "ORG"}


def names(sentence):
    """(start, end, type) of each name of a sentence, by its B- and I- tags."""
    found = []
    for place, (_, tag) in enumerate(sentence):
        if tag.startswith("B-"):
            found.append([place, place + 1, tag[2:]])
        elif tag.startswith("I-"):
            found[-1][1] = place + 1
    return [tuple(name) for name in found]


def test_every_line_is_a_word_a_tab_and_a_tag_and_a_blank_line_ends_each_sentence():
    wrong = [line for line in TEXT.split("\n") if line and not re.fullmatch(r"\S+\t\S+", line)]
    assert wrong == []
    assert TEXT.endswith("\n\n")
    assert "\n\n\n" not in TEXT
    assert not TEXT.startswith("\ufeff")


def test_letters_are_composed_so_that_a_word_is_spelled_in_one_way():
    assert unicodedata.normalize("NFC", TEXT) == TEXT


def test_the_tags_are_iob2():
    for sentence in SENTENCES:
        before = "O"
        for _, tag in sentence:
            assert tag == "O" or (tag[:2] in {"B-", "I-"} and tag[2:] in TYPES), sentence
            assert tag[:2] != "I-" or before[2:] == tag[2:], sentence
            before = tag


def test_there_are_as_many_sentences_and_names_of_each_type_as_a_first_try_needs():
    assert 300 <= len(SENTENCES) <= 330
    assert all(4 <= len(sentence) <= 35 for sentence in SENTENCES)
    counts = Counter(kind for sentence in SENTENCES for *_, kind in names(sentence))
    assert min(counts[kind] for kind in TYPES) >= 250
    assert 0.12 <= sum(not names(sentence) for sentence in SENTENCES) / len(SENTENCES) <= 0.18


def test_no_sentence_stands_twice():
    words = Counter(" ".join(word for word, _ in sentence).casefold() for sentence in SENTENCES)
    assert [sentence for sentence, times in words.items() if times > 1] == []


def test_a_name_of_several_words_is_a_name_wherever_it_stands():
    known = {tuple(w for w, _ in s[start:end]) for s in SENTENCES for start, end, _ in names(s) if end - start > 1}
    for sentence in SENTENCES:
        words = tuple(word for word, _ in sentence)
        for name in known:
            for start in range(len(words) - len(name) + 1):
                if words[start : start + len(name)] == name:
                    assert all(tag != "O" for _, tag in sentence[start : start + len(name)]), (name, words)


def test_the_figures_of_the_readme_are_those_of_the_file():
    counts = Counter(kind for sentence in SENTENCES for *_, kind in names(sentence))
    counts["words"] = sum(len(sentence) for sentence in SENTENCES)
    counts["sentences"] = len(SENTENCES)
    counts["sentences without a name"] = sum(not names(sentence) for sentence in SENTENCES)
    shown = {
        what: int(figure.replace(",", "")) for what, figure in re.findall(r"^\| ([^|]+) \| ([\d,]+) \|", README, re.M)
    }
    assert shown == counts
