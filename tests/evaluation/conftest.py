import base64
import io

import numpy as np
import pytest
from PIL import Image

import kerastk
from kerastk.datasets.check import Photo
from kerastk.datasets.images import to_png
from kerastk.datasets.manifest import Manifest
from kerastk.datasets.schemes import PLAIN, Span, in_order, tags_of
from kerastk.datasets.sentence import Sentence
from kerastk.datasets.sequence_data import SentenceManifest
from kerastk.datasets.vocabulary import Vocabulary
from kerastk.evaluation import gallery, reconstruction
from kerastk.evaluation.metrics import before_calibration, classification
from kerastk.evaluation.mistakes import suspects, thresholds, worst
from kerastk.evaluation.spans import surfaces, tagging
from kerastk.recipe import Autoencode, Finetune, Tag
from kerastk.run import Run

pytest.register_assert_rewrite("tests.evaluation.pages")


def noise(random, size=192):
    """A picture that no codec makes small, as it stands in mistakes.json."""
    file = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (size, size, 3), np.uint8)).save(file, "WEBP", quality=75)
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def make_run(tmp_path):
    """A function that writes a complete run folder of made-up figures, without a model."""

    def made(name="run", *, classes, photos=200, seed=0, right=2.5, findings=(), of_data=0, **recipe):
        random = np.random.default_rng([seed, 1])
        truth = np.random.default_rng(of_data).integers(0, len(classes), photos)
        logits = random.normal(size=(photos, len(classes)))
        logits[np.arange(photos), truth] += right
        scores = np.exp(2 * logits) / np.exp(2 * logits).sum(axis=1, keepdims=True)
        run = Run.create(tmp_path / "runs", name)
        run.write_recipe(Finetune(data="photos", base="mobilenet_v2", name=name, threads=2, **recipe))

        def one(split, number, label):
            digest = f"{of_data}-{split}-{number}"
            return Photo(f"{label}/{split}{number}.jpg", label, None, digest, digest, "JPEG", 300, 200, "RGB")

        splits = {
            split: [one(split, number, classes[label]) for number, label in enumerate(truth)]
            for split in ("train", "val", "test")
        }
        aside = [each for each in findings if each.kind in ("damaged", "empty")]
        manifest = Manifest(list(classes), splits, aside, list(findings), "70/15/15", 0, [])
        run.write_data(manifest.to_json())
        run.write_labels(
            list(classes), {"task": "finetune", "base": "mobilenet_v2", "head": "dense", "image_size": 224}
        )
        run.write_environment(
            {"versions": {"python": "3.11", "keras": "3.15.1"}, "backend": "tensorflow", "device": "cpu",
             "command": "kerastk finetune photos", "started": f"2026-01-0{1 + seed}T10:00:00+0000"}
        )  # fmt: skip
        rows = [
            {"phase": "finetune" if epoch else "probe", "epoch": epoch, "seconds": 2.0, "learning_rate": 0.001 * epoch,
             "photos_per_second": 200.0, "wait_share": 0.5, "cross_entropy": 1 / (1 + epoch), "accuracy": 0.5,
             "val_accuracy": 0.6 + 0.01 * epoch, "val_cross_entropy": 2 / (1 + epoch)}
            for epoch in range(6)
        ]  # fmt: skip
        run.write_log(rows)
        figures = classification(truth, scores, list(classes))
        figures["uncalibrated"] = before_calibration(truth, scores, 2.0)
        metrics = {
            "format": 1, "best": {"epoch": 4, "phase": "finetune", "temperature": 2.0}, "test": figures,
            "validation": figures, "seconds": {"looking": 1.0, "training": 15.0, "all": 20.0, "decoding": 7.0},
        }  # fmt: skip
        run.write_metrics(metrics)
        run.write_predictions(
            [{"path": photo.path, "truth": photo.label, "prediction": classes[int(row.argmax())],
              "probability": f"{row.max():.6f}"} for photo, row in zip(splits["test"], scores, strict=True)]
        )  # fmt: skip
        sure = thresholds(truth, scores)
        wrong, doubted = worst(truth, scores), suspects(truth, scores, sure)
        listed = list(dict.fromkeys([*wrong[:24].tolist(), *doubted[:24].tolist()]))
        noted = [
            {"split": "test", "path": splits["test"][each].path, "truth": classes[truth[each]],
             "answer": classes[int(scores[each].argmax())], "probability": float(scores[each].max()),
             "probability_of_truth": float(scores[each, truth[each]]), "threshold": float(sure[scores[each].argmax()]),
             "picture": noise(random), "heat": random.integers(0, 256, (7, 7)).tolist()}
            for each in listed
        ]  # fmt: skip
        run.write_mistakes(
            {"format": 1, "split": "test", "explained": True, "photos": noted,
             "counts": {"mistakes": len(wrong), "suspects": len(doubted)},
             "mistakes": [listed.index(each) for each in wrong[:24]],
             "suspects": [listed.index(each) for each in doubted[:24]]}
        )  # fmt: skip
        return run

    return made


@pytest.fixture
def make_tagger_run(tmp_path):
    """A function that writes the complete run folder of a tagger, made up and without a model.

    Sentences have five words and two spans of `types` each, or with `plain` a tag of these each; `right` is the share
    of spans or tags that are answered as they are.
    """

    def made(
        name="run", *, types=("PER", "LOC"), plain=False, sentences=60, right=0.7, seed=0, of_data=0, findings=(),
        words=("one", "two", "three"), **recipe,
    ):  # fmt: skip
        scheme = PLAIN if plain else "iob2"
        of_text, of_answers = np.random.default_rng([of_data, 7]), np.random.default_rng([seed, 8])

        def wrong(truth):
            if plain:
                return [each if of_answers.random() < right else types[0] for each in truth]
            found = []
            for span in truth:
                kind = 4 if of_answers.random() < right else of_answers.integers(0, 4)
                other = types[(types.index(span.label) + 1) % len(types)]
                found += [
                    [], [Span(*span[:2], other)], [Span(span.start, span.end - 1, span.label)],
                    [Span(span.start, span.end - 1, other)], [span],
                ][kind]  # fmt: skip
            return found

        def one(split, number):
            texts = (*of_text.choice(words, 2), f"{split}{of_data}", str(number), *of_text.choice(words, 1))
            if plain:
                return texts, [types[each] for each in of_text.integers(0, len(types), 5)]
            first, second = of_text.integers(0, len(types), 2)
            return texts, [Span(0, 2, types[first]), Span(3, 5, types[second])]

        def spelt(truth):
            return tuple(truth) if plain else tuple(tags_of(truth, 5, scheme))

        splits = {split: [one(split, number) for number in range(sentences)] for split in ("train", "val", "test")}
        rows = {
            split: [Sentence(tuple(map(str, texts)), spelt(truth), None, None, f"{split}.conll", 1 + 6 * number)
                    for number, (texts, truth) in enumerate(some)]
            for split, some in splits.items()
        }  # fmt: skip
        answers = [spelt(wrong(truth)) for _, truth in splits["test"]]
        classes = in_order((tag for each in rows["train"] for tag in each.tags), scheme)
        run = Run.create(tmp_path / "runs", name)
        run.write_recipe(Tag(data="train.conll", name=name, scheme=None if plain else "iob2", **recipe))
        manifest = SentenceManifest(
            classes, rows, list(findings), None, None, scheme, scheme, "columns word,tag (guessed)"
        )
        run.write_data(manifest.to_json())
        contract = {"task": "tag", "scheme": scheme, "source_scheme": scheme, "parts": ["words", "characters"]}
        run.write_labels(classes, contract)
        vocabulary = Vocabulary.of(
            [each.tokens for each in rows["train"]], classes, max_words=1000, min_count=1, fold_digits=False,
            lower=True, word_length=20,
        )  # fmt: skip
        run.write_vocabulary(vocabulary.to_json())
        run.write_environment(
            {"versions": {"python": "3.11", "keras": "3.15.1"}, "backend": "tensorflow", "device": "cpu",
             "command": "kerastk tag train.conll", "started": f"2026-01-0{1 + seed}T10:00:00+0000"}
        )  # fmt: skip
        run.write_log(
            [{"phase": "train", "epoch": epoch, "seconds": 2.0, "learning_rate": 0.001 / epoch,
              "words_per_second": 300.0, "wait_share": 0.1, "loss": 1 / epoch, "val_loss": 2 / epoch,
              "val_accuracy": 0.6 + 0.01 * epoch, **({} if plain else {"val_f1": 0.5 + 0.02 * epoch})}
             for epoch in range(1, 7)]
        )  # fmt: skip
        seen = None if plain else surfaces(((each.tokens, each.tags) for each in rows["train"]), scheme)
        figures = tagging(
            [each.tags for each in rows["test"]], answers, scheme, tokens=[each.tokens for each in rows["test"]],
            seen=seen,
        )  # fmt: skip
        run.write_tags(
            "".join(
                "".join(f"{word}\t{one}\t{other}\n" for word, one, other in zip(
                    each.tokens, each.tags, answer, strict=True)) + "\n"
                for each, answer in zip(rows["test"], answers, strict=True)
            )
        )  # fmt: skip
        run.write_metrics(
            {"format": 1, "best": {"epoch": 5, "phase": "train", "val_error": 0.4}, "test": figures,
             "validation": figures, "seconds": {"looking": 1.0, "training": 15.0, "all": 20.0, "decoding": 0.0}}
        )  # fmt: skip
        return run

    return made


@pytest.fixture(scope="session")
def digit_arrays(tmp_path_factory):
    """The paths of 500 real handwritten digits: .npz of images of 8 x 8 pixels with labels, and a CSV of 9 of their
    columns."""
    from sklearn.datasets import load_digits

    folder, loaded = tmp_path_factory.mktemp("arrays"), load_digits()
    images = (loaded.images[:500] * 15.9).astype("uint8")
    np.savez(folder / "digits.npz", x=images, y=loaded.target[:500])
    chosen = images.reshape(500, -1)[:, 18:27]
    heads = ",".join(f"pixel {number}" for number in range(18, 27))
    np.savetxt(folder / "rows.csv", chosen, fmt="%d", delimiter=",", header=heads, comments="")
    return folder / "digits.npz", folder / "rows.csv"


@pytest.fixture(scope="session")
def train_autoencoder(tmp_path_factory):
    """A function that trains a small autoencoder; its recipe's fields come by name."""
    folder = tmp_path_factory.mktemp("runs")

    def trained(name, data, **recipe):
        recipe = {"epochs": 3, "batch_size": 64, "kind": "dense", "latent": 4, "deterministic": True, **recipe}
        return kerastk.train(Autoencode(data=str(data), name=name, runs=str(folder), **recipe), show=False)

    return trained


@pytest.fixture(scope="session")
def denoising_run(digit_arrays, train_autoencoder):
    """A finished run of a denoising autoencoder whose layers were trained as machines first."""
    fields = {"noise": "gaussian:0.3", "pretrain": "rbm", "rbm_epochs": 2, "widths": "32"}
    return train_autoencoder("denoising", digit_arrays[0], **fields)


@pytest.fixture(scope="session")
def variational_run(digit_arrays, train_autoencoder):
    """A finished run of a variational autoencoder."""
    return train_autoencoder("variational", digit_arrays[0], variational=True, widths="64")


@pytest.fixture(scope="session")
def one_class_run(digit_arrays, train_autoencoder):
    """A finished run of an autoencoder that knows the digits 0 and 1 alone."""
    return train_autoencoder("one-class", digit_arrays[0], normal="0,1", widths="64", epochs=20)


@pytest.fixture(scope="session")
def rows_run(digit_arrays, train_autoencoder):
    """A finished run of an autoencoder of rows of numbers."""
    return train_autoencoder("rows", digit_arrays[1])


@pytest.fixture
def make_autoencoder_run(tmp_path):
    """A function that writes the complete run folder of an autoencoder, made up and without a model.

    The error of an item is `scale` times what `of_data` draws for it, and a little that `seed` draws; of classes other
    than `normal` it is `strange` more. With `distance` there is that score, too.
    """

    def made(
        name="run", *, labels=("a", "b"), items=80, scale=1.0, strange=20.0, seed=0, of_data=0, shape=(8, 8, 1),
        names=None, distance=False, findings=(), paths="{label}/{split}{number}.png", spread=0.2, **recipe,
    ):  # fmt: skip
        of_items, of_errors = np.random.default_rng([of_data, 5]), np.random.default_rng([seed, 6])
        recipe = Autoencode(
            data="photos", name=name, kind="dense", latent=4, widths="32", loss="mse", epochs=6, **recipe
        )  # fmt: skip
        known = [label for label in labels if label in recipe.normal_classes] or list(labels)

        def one(split, number, label):
            digest = f"{of_data}-{split}-{number}"
            path = paths.format(label=label, split=split, number=number)
            return Photo(path, label, None, digest, digest, "PNG", 8, 8, "L")

        drawn = {"train": known, "val": known, "test": labels}
        splits = {
            split: [one(split, number, some[number % len(some)]) for number in range(items)]
            for split, some in drawn.items()
        }
        errors = {
            split: scale * of_items.gamma(4.0, 1.0, items) + np.abs(of_errors.normal(0, spread, items))
            for split in ("val", "test")
        }
        anomalous = np.array([photo.label not in known for photo in splits["test"]])
        errors["test"] += strange * anomalous
        limit, pixels = reconstruction.threshold(errors["val"], recipe.false_alarms), len(shape) == 3
        values = int(np.prod(shape))

        def figures(split, strangers):
            found = reconstruction.figures(errors[split], values)
            found["rivals"] = {"PCA": {"error": 2 * float(errors[split].mean()), "fitted_on": items}}
            found["anomalies"] = reconstruction.detection(errors[split], strangers, limit)
            if distance:
                found["anomalies_by_distance"] = reconstruction.detection(errors[split] / 10, strangers, limit / 10)
            if pixels:
                found["checkerboard"] = {"reconstructions": -1.0, "originals": -2.0}
            if recipe.variational:
                prior = {"active": 3, "numbers": 4, "mean": 0.1, "deviation": 0.9}
                found |= {"elbo": -90.0, "nats": 80.0, "kl": 10.0, "prior": prior}
            return found

        run = Run.create(tmp_path / "runs", name)
        run.write_recipe(recipe)
        run.write_data(Manifest(list(labels), splits, [], list(findings), "80/10/10", 0, []).to_json())
        contract = {"task": "autoencode", "items": "images" if pixels else "rows", "shape": list(shape), "latent": 4}
        run.write_labels(list(labels), {**contract, "variational": recipe.variational, "score": "error"})
        run.write_environment(
            {"versions": {"python": "3.11", "keras": "3.15.1"}, "backend": "tensorflow", "device": "cpu",
             "command": "kerastk autoencode photos", "started": f"2026-01-0{1 + seed}T10:00:00+0000"}
        )  # fmt: skip
        run.write_log(
            [{"phase": "train", "epoch": epoch, "seconds": 2.0, "learning_rate": 0.001 / epoch,
              "photos_per_second": 300.0, "wait_share": 0.1, "loss": 1 / epoch, "error": 9 / epoch,
              "val_loss": 2 / epoch, "val_error": 8 / epoch} for epoch in range(1, 7)]
        )  # fmt: skip
        rows = [
            {"path": photo.path, "label": photo.label, "score": f"{error:.6g}", "anomaly": int(error > limit)}
            for photo, error in zip(splits["test"], errors["test"].tolist(), strict=True)
        ]
        for row, error in zip(rows, errors["test"].tolist(), strict=True):
            row |= {"distance": f"{error / 10:.6g}"} if distance else {}
        run.write_predictions(rows)
        run.write_gallery(_pictured(splits["test"], errors["test"], shape, names, recipe.variational, of_items))
        anomaly = {"score": "error", "threshold": limit, "false_alarms": recipe.false_alarms, "calibrated_on": items}
        if distance:
            anomaly["distance"] = {"base": "resnet50", "threshold": limit / 10}
        run.write_metrics(
            {"format": 1, "best": {"epoch": 5, "phase": "train", "val_loss": 0.4}, "test": figures("test", anomalous),
             "validation": figures("val", np.zeros(items, bool)), "anomaly": anomaly,
             "seconds": {"looking": 1.0, "training": 15.0, "all": 20.0, "decoding": 0.0}}
        )  # fmt: skip
        return run

    return made


def _pictured(photos, errors, shape, names, variational, random):
    """The content of gallery.json, of noise."""
    labels = sorted({photo.label for photo in photos})
    places = random.random((len(photos), 2)).round(4).tolist()
    points = [[*place, labels.index(photo.label)] for place, photo in zip(places, photos, strict=True)]
    content = {"split": "test", "labels": labels, "points": points[: gallery.POINTS]}
    if len(shape) == 1:
        names = names or [f"column {number}" for number in range(shape[0])]
        return content | {"columns": [{"name": each, "error": 1 / (1 + place)} for place, each in enumerate(names)]}

    def noise_of(lines, columns):
        rows = [random.integers(0, 256, (columns, *shape), np.uint8) for _ in range(lines)]
        return base64.b64encode(to_png(gallery.grid(rows))).decode()

    order = np.argsort(-errors, kind="stable")[: gallery.WIDE].tolist()
    pictures = {"reconstructions": noise_of(3, 12), "worst": noise_of(2, len(order)), "ways": noise_of(6, 12)}
    if variational:
        pictures["samples"] = noise_of(6, 12)
    worst = [{"path": photos[each].path, "label": photos[each].label, "error": float(errors[each])} for each in order]
    return content | {"rows": ["originals", "reconstructions", "PCA"], "worst": worst, "pictures": pictures}
