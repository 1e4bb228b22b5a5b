import json

import keras
import numpy as np
import pytest
import tensorflow
from PIL import Image

import kerastk
from kerastk.datasets.images import to_png
from kerastk.errors import DataError, RecipeError, RunError
from kerastk.evaluation.evaluate import evaluate
from kerastk.recipe import Classify
from kerastk.tasks.photo_model import load_model
from tests.tasks.conftest import FAST


def test_it_learns_from_arrays_and_answers_for_photos_and_arrays_alike(digit_arrays, classified, tmp_path):
    run = classified()
    assert run.metrics["test"]["accuracy"] > 0.9
    assert run.metrics["test"]["photos"] == 120
    assert run.recipe.image_size == 12
    assert run.labels["colour"] == "L"
    assert run.report_html.exists()
    predictor = kerastk.load(run.path)
    with np.load(digit_arrays) as stored:
        images, labels = stored["x_test"], stored["y_test"]
    answers = predictor(images)
    assert (
        np.mean([answer.label == str(label) for answer, label in zip(answers, labels, strict=True)])
        == (run.metrics["test"]["accuracy"])
    )
    # One of them in every form: an array, with and without its last axis, a file, a picture in colours.
    (tmp_path / "digit.png").write_bytes(to_png(images[0]))
    coloured = np.repeat(images[0][..., None], 3, axis=-1)
    forms = [images[0], images[0][..., None], tmp_path / "digit.png", coloured, Image.fromarray(coloured)]
    assert [predictor(form) for form in forms] == [answers[0]] * 5
    streamed = list(predictor.stream([tmp_path / "digit.png", digit_arrays]))
    assert streamed[0].answers == [answers[0]]
    assert [each.path.rsplit("/", 1)[1] for each in streamed[-2:]] == ["x_test#118", "x_test#119"]


def test_evaluation_tells_what_was_trained_on(digit_arrays, classified, tmp_path):
    run = classified()
    figures = evaluate(kerastk.load(run.path), digit_arrays)
    assert figures["photos"] == 500
    assert figures["trained_on"] == 380
    assert figures["unseen"]["accuracy"] == run.metrics["test"]["accuracy"]
    np.save(tmp_path / "bare.npy", np.zeros((3, 12, 12), np.uint8))
    with pytest.raises(DataError, match="bare has no labels to compare with; use `kerastk predict`"):
        evaluate(kerastk.load(run.path), tmp_path / "bare.npy")
    np.savez(tmp_path / "more.npz", x=np.zeros((3, 12, 12), np.uint8), y=np.array([1, 7, 2]))
    with pytest.raises(DataError, match="the model does not know the class '7'; it knows '0', '1'"):
        evaluate(kerastk.load(run.path), tmp_path / "more.npz")


def test_it_learns_from_photos(digits, classified):
    run = classified(data=str(digits), split="70/15/15", image_size=12, threads=2, epochs=20)
    assert run.metrics["test"]["accuracy"] > 0.8
    assert run.labels["colour"] == "RGB"
    assert run.recipe.threads == 2
    answer = kerastk.load(run.path)(digits / "3" / "0.png")
    assert answer.label in run.labels["classes"]


def test_arrays_are_made_squares_of_the_asked_size(digit_arrays, classified):
    run = classified(image_size=16, epochs=1)
    data = kerastk.open_data(run.recipe)
    with np.load(digit_arrays) as stored:
        first = stored["x_test"][0]
    expected = np.asarray(Image.fromarray(first).resize((16, 16), Image.Resampling.BILINEAR, reducing_gap=2))
    np.testing.assert_array_equal(data.test.example(0)[0][..., 0], expected)
    np.testing.assert_array_equal(kerastk.load(run.path).pixels(first)[..., 0], expected)


def test_a_base_sees_grey_arrays_in_colours(digit_arrays, tmp_path):
    recipe = Classify(data=digit_arrays, net="mobilenet_0.25", image_size=32, runs=str(tmp_path))
    batch, _ = next(iter(kerastk.open_data(recipe).train))
    assert batch.shape == (128, 32, 32, 3)
    assert (batch == batch[..., :1]).all()
    assert kerastk.build(recipe).output.shape == (None, 5)


def test_members_answer_by_their_mean(classified):
    run = classified(members=2, epochs=2)
    model = load_model(run)
    assert {"member_1_conv_1", "member_2_conv_1"} <= {layer.name for layer in model.layers}
    first, second = (model.get_layer(f"member_{number}_conv_1").get_weights()[0] for number in (1, 2))
    assert abs(first - second).max() > 0.01
    assert run.metrics["test"]["accuracy"] > 0.6
    with pytest.raises(RecipeError, match="members each learn from a plain cross-entropy; use balance sample"):
        Classify(members=2, balance="focal")


def test_chosen_classes_are_learned_alone(digit_arrays, classified, tmp_path):
    run = classified(classes="3,1", epochs=1)
    assert run.labels["classes"] == ["1", "3"]
    (tmp_path / "names.txt").write_text("1\n3\n\n")
    named = kerastk.open_data(Classify(data=digit_arrays, classes=str(tmp_path / "names.txt")))
    assert named.manifest.counts("test") == kerastk.open_data(run.recipe).manifest.counts("test")
    for given, said in {
        "1,33": "digits has no class '33'; did you mean 3",
        "1": "classes must name two or more; got 1",
        "nowhere.txt": "cannot read the classes in 'nowhere.txt': No such file",
    }.items():
        with pytest.raises(DataError, match=said):
            kerastk.open_data(Classify(data=digit_arrays, classes=given))


@pytest.mark.parametrize("given", ["arrays", "photos"])
def test_draws_of_augmentation_belong_to_the_image(given, digit_arrays, digits):
    data = digit_arrays if given == "arrays" else str(digits)
    common = {"data": data, "image_size": 12, "augment": "shift-pad:0.2,flip", "batch_size": 16}
    rows = kerastk.open_data(Classify(**common)).train
    plain = kerastk.open_data(Classify(**{**common, "augment": "none"})).train
    epochs = [np.concatenate([images for images, _ in rows.batches(epoch, epoch + 1)]) for epoch in (0, 1)]
    order = [rows.numbers(epoch) for epoch in (0, 1)]
    for epoch, images, numbers in zip((0, 1), epochs, order, strict=True):
        # What a batch shows is what the image alone shows, and the same whoever else is in the batch.
        for place in (0, 7, len(numbers) - 1):
            np.testing.assert_array_equal(images[place], rows.example(int(numbers[place]), epoch)[0])
    number = int(order[0][0])
    views = [rows.example(number, epoch)[0] for epoch in range(6)]
    assert len({view.tobytes() for view in views}) > 3
    assert any((view != plain.example(number, 3)[0]).any() for view in views)
    # Other splits are shown as they are.
    test = kerastk.open_data(Classify(**common)).val
    np.testing.assert_array_equal(test.example(0, 0)[0], test.example(0, 5)[0])


def test_equal_seeds_equal_runs_and_others_differ(classified, digit_arrays, tmp_path):
    once = classified(augment="shift-pad,flip", mixup=0.2, dropout=0.1, epochs=2)
    again = kerastk.train(
        Classify(**{**{name: getattr(once.recipe, name) for name in ("data", "split", "deterministic", *FAST)},
                    "augment": "shift-pad,flip", "mixup": 0.2, "dropout": 0.1, "epochs": 2}, runs=str(tmp_path)),
        show=False,
    )  # fmt: skip
    assert once.predictions_csv.read_text() == again.predictions_csv.read_text()
    other = classified(augment="shift-pad,flip", mixup=0.2, dropout=0.1, epochs=2, seed=1)
    assert once.predictions_csv.read_text() != other.predictions_csv.read_text()


def test_it_trains_with_tensorflows_fused_normalisation(classified, monkeypatch):
    met, kernel = [], tensorflow.raw_ops.FusedBatchNormV3
    monkeypatch.setattr(tensorflow.raw_ops, "FusedBatchNormV3", lambda **given: met.append(1) or kernel(**given))
    run = classified(epochs=1)
    # Once a layer in the step's graph; the saved model is Keras's own.
    assert len(met) == 6
    assert np.isfinite(run.metrics["test"]["cross_entropy"])


def test_bfloat16_keeps_the_figures_finite(classified):
    run = classified(precision="bfloat16", epochs=2)
    assert np.isfinite(float(run.log[-1]["loss"]))
    assert {layer.dtype_policy.name for layer in load_model(run).layers} == {"float32"}


def test_fine_tuning_starts_from_such_a_run(digits, classified, tmp_path):
    start = classified(data=str(digits), split="70/15/15", image_size=12, threads=2, epochs=20)
    common = {"data": str(digits), "weights": str(start.path), "runs": str(tmp_path), "threads": 2}
    run = kerastk.train(kerastk.Finetune(**common, unfreeze="head"), show=False)
    assert run.recipe.base == "fast-4"
    assert run.recipe.image_size == 12
    assert run.metrics["test"]["accuracy"] > 0.8
    with pytest.raises(RecipeError, match=r"base resnet50 does not fit the weights of .*, which is a fast-4"):
        kerastk.build(kerastk.Finetune(**common, base="resnet50"))


def test_a_network_of_grey_images_is_no_start_for_photos(digits, classified):
    with pytest.raises(RecipeError, match="learned grey images, and finetune shows photos in colour"):
        kerastk.build(kerastk.Finetune(data=str(digits), weights=str(classified().path)))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"net": "resnet-21"}, "no network is called 'resnet-21'"),
        ({"net": "resnet50", "activation": "relu"}, "activation has no effect with resnet50"),
        ({"net": "mobilenet_v2", "members": 2}, "members are of one of lenet5"),
        ({"net": "resnet20", "pooling": "max"}, "takes no pooling"),
        ({"net": "mobilenet_v2"}, r"image_size must be at least 32 with mobilenet_v2; got 12. --image-size enlarges"),
        ({"net": "resnet20", "optimizer": "muon"}, "muon turns matrices alone, .* got net resnet20"),
        ({"threads": 2}, "threads has no effect on arrays"),
        ({"data": None}, "no data given"),
    ],
)
def test_what_does_not_go_together_is_refused(fields, said, digit_arrays):
    recipe = Classify(**{"data": digit_arrays, **fields})
    with pytest.raises(RecipeError, match=said):
        kerastk.build(recipe)


def test_rows_of_numbers_are_no_images(tmp_path):
    np.savez(tmp_path / "rows.npz", x=np.arange(40.0).reshape(10, 4), y=np.arange(10) % 2)
    with pytest.raises(DataError, match=r"rows holds rows of 4 numbers, and classify takes images"):
        kerastk.build(Classify(data=str(tmp_path / "rows.npz")))
    np.savez(tmp_path / "bare.npz", x=np.zeros((10, 12, 12), np.uint8))
    with pytest.raises(DataError, match="bare has no labels; give y_train beside x_train"):
        kerastk.open_data(Classify(data=str(tmp_path / "bare.npz")))


def test_labels_that_do_not_fit_the_model_are_refused(classified, tmp_path):
    run = classified()
    labels = json.loads(run.labels_json.read_text())
    for change in ({"colour": "RGB"}, {"image_size": 16}, {"net": 7}, {"head": "svm"}, {"classes": ["0", "1"]}):
        run.labels_json.write_text(json.dumps(labels | change))
        with pytest.raises(RunError, match=r"do not belong together|does not describe a classifier"):
            kerastk.load(run.path)
    run.labels_json.write_text(json.dumps(labels))
    assert isinstance(kerastk.load(run.path).model, keras.Model)
