"""What a run writes for TensorBoard, read by TensorBoard's own readers."""

import dataclasses
import io
import types

import keras
import numpy as np
import pytest
import tensorflow
from google.protobuf import text_format
from PIL import Image
from sklearn.metrics import precision_score, recall_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.projector import ProjectorConfig
from tensorboard.plugins.projector import projector_plugin as projector

import kerastk
from kerastk.errors import RecipeError
from kerastk.evaluation import scores
from kerastk.networks.classifier import features_model
from kerastk.networks.cuts import cut_for, split_at
from kerastk.recipe import load
from kerastk.tasks.finetune import COMPARED
from kerastk.training.projector import Observer, projector_files
from kerastk.training.results import COLUMNS, Judged, write_results
from kerastk.training.tensorboard import Writer
from tests.training.test_trainer import recipe

STEPS = 4
CLASSES = ["0", "1", "2", "3"]


@pytest.fixture(scope="module")
def shown_run(digits, small_run, tmp_path_factory):
    """A run of two trained phases with all that can be asked for."""
    folder = tmp_path_factory.mktemp("shown")
    asked = {"histograms": True, "gradient_norms": True, "profile": "3:6"}
    given = kerastk.Finetune(
        data=str(digits), weights=str(small_run.path), unfreeze=1, probe="train", head_epochs=1, epochs=2,
        runs=str(folder), threads=2, **asked,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERASTK_CACHE", str(folder / "cache"))
        return kerastk.train(given, show=False)


def read(run, split):
    return EventAccumulator(str(run.events / split), size_guidance={"tensors": 0}).Reload()


def values(events, tag):
    """{step: array} of a tag."""
    found = events.Tensors(tag)
    return {event.step: tensorflow.make_ndarray(event.tensor_proto) for event in found}


def picture(events, tag):
    ((_, (width, height, png)),) = values(events, tag).items()
    image = Image.open(io.BytesIO(png))
    assert image.size == (int(width), int(height))
    return np.asarray(image.convert("RGB"))


def test_all_that_is_written_stands_on_one_step_counter_over_the_phases(shown_run):
    for split in ("train", "validation"):
        events = read(shown_run, split)
        for tag in events.Tags()["tensors"]:
            steps = [event.step for event in events.Tensors(tag)]
            assert steps == sorted(set(steps)), tag
            assert steps[-1] <= 3 * STEPS
        assert list(values(events, "loss")) == [STEPS, 2 * STEPS, 3 * STEPS]
    assert list(values(read(shown_run, "train"), "learning_rate")) == list(range(1, 3 * STEPS + 1))


def test_the_curves_are_those_of_the_log(shown_run):
    train, validation = read(shown_run, "train"), read(shown_run, "validation")
    curves = {"val_" + name: (validation, name) for name in ("loss", "accuracy", "cross_entropy")}
    curves |= {name: (train, name) for name in ("loss", "accuracy", "cross_entropy", "photos_per_second", "wait_share")}
    for column, (events, tag) in curves.items():
        logged = [float(row[column]) for row in shown_run.log]
        assert [float(value) for value in values(events, tag).values()] == pytest.approx(logged, rel=1e-6), column


def test_the_hparams_tab_gets_the_recipe_and_the_final_figures(shown_run, small_run):
    for run in (shown_run, small_run):
        events = read(run, "train")
        content = {tag: found.plugin_data.content for tag, found in events.summary_metadata.items()}
        columns = hparams.parse_experiment_plugin_data(content["_hparams_/experiment"])
        start = hparams.parse_session_start_info_plugin_data(content["_hparams_/session_start_info"])
        end = hparams.parse_session_end_info_plugin_data(content["_hparams_/session_end_info"])
        assert end.status == api_pb2.STATUS_SUCCESS
        assert start.group_name.startswith(f"{run.path.name} 20")
        given = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
        fields = [field.name for field in dataclasses.fields(kerastk.Finetune)]
        assert given == {name: getattr(run.recipe, name) for name in fields if getattr(run.recipe, name) is not None}
        # The columns are the same for all runs, whatever they use, with those first that one compares.
        assert [info.name for info in columns.hparam_infos] == fields
        assert {info.name for info in columns.hparam_infos if info.differs} == set(COMPARED)
        assert [info.name.tag for info in columns.metric_infos] == list(COLUMNS)
        for tag in COLUMNS:
            name, _, figure = tag.removeprefix("final/").partition("_")
            metrics = run.metrics
            wanted = metrics["seconds"]["training"] if name == "seconds" else metrics[name][figure]
            ((step, value),) = values(events, tag).items()
            assert float(value) == pytest.approx(wanted, rel=1e-6)
            assert step == STEPS * len(run.log)


def test_the_text_is_the_recipe(shown_run, tmp_path):
    ((_, text),) = values(read(shown_run, "train"), "recipe").items()
    lines = text.item().decode().splitlines()
    assert all(line.startswith("    ") for line in lines)
    (tmp_path / "recipe.toml").write_text("\n".join(line[4:] for line in lines))
    assert load(tmp_path / "recipe.toml") == shown_run.recipe


def test_the_graph_is_the_network_in_its_stages(shown_run):
    graph = GraphDef.FromString(read(shown_run, "train").Graph().SerializeToString())
    model = keras.saving.load_model(shown_run.model_keras)
    nodes = {node.name: node for node in graph.node}
    assert [name.partition("/")[2] for name in nodes] == [operation.name for operation in model.operations]
    assert {name.partition("/")[0] for name in nodes} == {*(f"stage_{number}" for number in range(1, 6)), "head"}
    for operation in model.operations:
        node = next(node for name, node in nodes.items() if name.partition("/")[2] == operation.name)
        assert node.op == type(operation).__name__
        assert all(source in nodes for source in node.input)
        shape = [size.size for size in node.attr["_output_shapes"].list.shape[0].dim]
        assert shape == [-1, *operation.output.shape[1:]]
        assert node.attr["weights"].i == sum(weight.size for weight in operation.get_weights())
    # This network is a chain.
    assert [list(node.input) for node in graph.node] == [[], *([name] for name in list(nodes)[:-1])]


def test_pictures_can_be_looked_at(shown_run):
    train, validation = read(shown_run, "train"), read(shown_run, "validation")
    assert picture(train, "augmented training photos").shape == (4 * 32, 8 * 32, 3)
    assert picture(train, "confusion matrix (test)").std() > 10
    # 24 photos of 128 pixels in 6 columns, each above its caption.
    worst = picture(validation, "validation photos of the highest loss")
    assert worst.shape == (4 * (128 + 36), 6 * 128, 3)
    captions = worst.reshape(4, 164, 6, 128, 3)[:, 130:].std(axis=(1, 3, 4))
    assert (captions > 10).all()


class Photos:
    """Stands for a split of squares, each of one grey."""

    def __init__(self, truth, classes):
        self.truth, self.classes = np.array(truth), classes
        self.photos = [
            types.SimpleNamespace(label=classes[each], path=f"{number}.png") for number, each in enumerate(truth)
        ]

    def example(self, number):
        return np.full((20, 20, 3), 10 * number % 256, np.uint8), None


def results(folder, truth, found, classes):
    writer = Writer(folder / "events")
    figures = {"accuracy": 0.5, "cross_entropy": 1.0, "macro_f1": 0.4, "confusion": np.eye(len(classes))}
    split = Photos(truth, classes)
    write_results(writer, {"validation": Judged(split, np.array(found, np.float32), figures)}, seconds=1.5, step=7)
    # Without close: they are in the files.
    return read(types.SimpleNamespace(events=folder / "events"), "validation")


def test_the_worst_photo_comes_first(tmp_path):
    found = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.01, 0.99]]
    grid = picture(results(tmp_path, [0, 0, 0, 1], found, ["a\n", "$b$"]), "validation photos of the highest loss")
    assert [int(grid[64, 64 + 128 * place, 0]) for place in range(4)] == [20, 10, 0, 30]


def test_curves_of_precision_and_recall_are_those_of_scikit_learn(tmp_path):
    random = np.random.default_rng(5)
    truth = random.integers(0, 3, 40)
    # No score lies on a threshold, where rounding would decide.
    found = random.dirichlet([0.7] * 3, 40)
    events = results(tmp_path, truth, found, ["cat", "dog", "owl"])
    curves = {tag.removesuffix("/pr_curves"): values(events, tag) for tag in events.Tags()["tensors"] if "pr_c" in tag}
    assert set(curves) == {f"validation/{name}" for name in ("cat", "dog", "owl", "all classes")}
    hits = np.eye(3, dtype=bool)[truth]
    columns = {name: (hits[:, number], found[:, number]) for number, name in enumerate(("cat", "dog", "owl"))}
    for name, (right, score) in {**columns, "all classes": (hits.ravel(), found.ravel())}.items():
        ((step, curve),) = curves[f"validation/{name}"].items()
        assert step == 7
        assert curve.shape == (6, 201)
        for place in (1, 40, 100, 157, 190):
            guess = score.astype(np.float32) >= place / 200
            precision = precision_score(right, guess, zero_division=0)
            assert curve[4, place] == pytest.approx(precision, abs=1e-6)
            assert curve[5, place] == pytest.approx(recall_score(right, guess), abs=1e-6)


def test_of_many_classes_there_is_one_curve(tmp_path):
    classes = [f"class {number}" for number in range(31)]
    events = results(tmp_path, range(31), np.full((31, 31), 1 / 31), classes)
    assert [tag for tag in events.Tags()["tensors"] if "pr_c" in tag] == ["validation/all classes/pr_curves"]


def test_a_run_has_a_curve_of_each_class_for_validation_and_test(shown_run):
    tags = read(shown_run, "validation").Tags()["tensors"]
    wanted = {f"{split}/{name}/pr_curves" for split in ("validation", "test") for name in (*CLASSES, "all classes")}
    assert {tag for tag in tags if "pr_curves" in tag} == wanted


def test_histograms_are_of_what_each_phase_trains(shown_run, small_run):
    events = read(shown_run, "train")
    found = {tag.removeprefix("weights/"): values(events, tag) for tag in events.Tags()["tensors"] if "weights/" in tag}
    model = keras.saving.load_model(shown_run.model_keras)
    trained = {
        weight.path: weight.shape
        for layer in split_at(model, cut_for(model, 1))[1].layers
        for weight in layer.trainable_weights
        if not isinstance(layer, keras.layers.BatchNormalization)
    }
    assert set(found) == set(trained)
    for path, steps in found.items():
        assert list(steps) == [STEPS * epoch for epoch in ((1, 2, 3) if path.startswith("head/") else (2, 3))]
        for buckets in steps.values():
            # Rows of left, right, count.
            assert buckets[:, 2].sum() == np.prod(trained[path])
    assert not [tag for tag in read(small_run, "train").Tags()["tensors"] if "weights/" in tag]


def test_a_run_that_asks_for_nothing_more_gets_nothing_more(small_run):
    tags = read(small_run, "train").Tags()["tensors"]
    assert not [tag for tag in tags if tag.startswith(("weights/", "gradient_norm/"))]
    assert not (small_run.events / "train" / "plugins").exists()


def test_gradient_norms_are_written_for_all_and_for_each_stage_that_is_trained(shown_run):
    events = read(shown_run, "train")
    norms = {tag: values(events, tag) for tag in events.Tags()["tensors"] if tag.startswith("gradient_norm/")}
    assert set(norms) == {"gradient_norm/all", "gradient_norm/head", "gradient_norm/stage_5"}
    assert list(norms["gradient_norm/head"]) == list(norms["gradient_norm/all"]) == list(range(1, 3 * STEPS + 1))
    assert list(norms["gradient_norm/stage_5"]) == list(range(STEPS + 1, 3 * STEPS + 1))
    for step, whole in norms["gradient_norm/all"].items():
        parts = [norms[f"gradient_norm/{part}"].get(step, 0.0) for part in ("head", "stage_5")]
        assert float(whole) == pytest.approx(np.hypot(*parts), rel=1e-5)
        assert whole > 0


def test_the_profile_is_in_the_place_where_the_profiler_looks(shown_run):
    traces = list((shown_run.events / "train" / "plugins" / "profile").glob("*/*.xplane.pb"))
    assert len(traces) == 1
    trace = traces[0].read_bytes()
    assert b"train" in trace
    assert b"one_step_on_data" in trace


def test_a_trace_takes_the_place_of_an_earlier_one(tmp_path):
    writer = Writer(tmp_path)
    old = tmp_path / "train" / "plugins" / "profile" / "old"
    old.mkdir(parents=True)
    writer.begin_trace()
    with writer.traced(3):
        tensorflow.reduce_sum(tensorflow.ones(3))
    # Left open: close ends it.
    writer.close()
    assert not old.exists()
    assert len(list(old.parent.glob("*/*.xplane.pb"))) == 1


def test_a_profile_that_cannot_be_made_is_refused(digits, tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match=r"profile must begin within the run, which has 4 steps; got 5\."):
        kerastk.train(recipe(digits, tmp_path, profile="5:9"), show=False)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RecipeError, match="profile needs the tensorflow backend; the run is on jax"):
        kerastk.train(recipe("nowhere", tmp_path, profile="1:2"), show=False)
    assert not (tmp_path / "runs").exists()


def test_the_projector_shows_the_features_of_the_best_model(shown_run, digits):
    folder = shown_run.events / "validation"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (shown,) = config.embeddings
    found = projector._read_tensor_binary_file(str(folder / shown.tensor_path), shown.tensor_shape)
    data = kerastk.open_data(shown_run.recipe)
    photos = np.concatenate([images for images, _ in data.val])
    model = keras.saving.load_model(shown_run.model_keras)
    wanted = np.asarray(features_model(model)(photos))
    assert found.shape == wanted.shape
    # The first one's last bits are not its own.
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    head, *rows = [line.split("\t") for line in (folder / shown.metadata_path).read_text().splitlines()]
    assert head == ["label", "prediction", "photo"]
    guess = np.asarray(model(photos)).argmax(axis=1)
    assert rows == [
        [photo.label, data.classes[each], photo.path] for photo, each in zip(data.val.photos, guess, strict=True)
    ]
    assert list(shown.sprite.single_image_dim) == [32, 32]
    sprite = np.asarray(Image.open(folder / shown.sprite.image_path)).astype(int)
    # 24 photos in rows of 5.
    assert sprite.shape == (5 * 32, 5 * 32, 3)
    for number, photo in enumerate(photos):
        row, column = divmod(number, 5)
        tile = sprite[32 * row :, 32 * column :][:32, :32]
        nearest = np.abs(photos.astype(int) - tile).mean(axis=(1, 2, 3))
        assert np.abs(photo - tile).mean() == nearest.min() < 8


def test_the_observed_network_answers_bit_for_bit_as_the_network(shown_run):
    model = keras.saving.load_model(shown_run.model_keras)
    split = kerastk.open_data(shown_run.recipe).val
    observer = Observer(model, [0, 5, 23])
    assert np.array_equal(scores.of_rows(observer, split), scores.of_rows(model, split))
    assert len(observer.features) == len(observer.thumbnails) == 3
    wanted = scores.of_rows(features_model(model), split)[[0, 5, 23]]
    np.testing.assert_allclose(observer.features, wanted, rtol=1e-6)
    assert np.array_equal(observer.thumbnails[1], split.example(5)[0])


def test_names_do_not_break_the_lines_of_the_projector():
    names = ["tab\tand\nline", "carriage\rreturn\u2028", "caf\udce9"]
    thumbnails = [np.zeros((48, 48, 3), np.uint8)] * 3
    files = projector_files(np.zeros((3, 5), np.float32), thumbnails, {"label": names, "photo": names})
    lines = files["photos.tsv"].split("\n")
    assert lines == ["label\tphoto", *(f"{name}\t{name}" for name in map(printable, names)), ""]
    files["photos.tsv"].encode()
    assert list(files)[-1] == "projector_config.pbtxt"


def printable(name):
    return name.encode("unicode_escape").decode() if name != "caf\udce9" else "caf\\udce9"


@pytest.mark.parametrize("first", [0.0, 1.5, np.frombuffer(b"\x00\x0a\x7f\x3f", "<f4")[0]])
def test_the_projector_never_takes_features_for_text(first, tmp_path):
    features = np.zeros((3, 4), np.float32)
    features[0, 0] = first
    files = projector_files(features, [np.zeros((9, 9, 3), np.uint8)] * 3, {"label": "abc", "photo": "abc"})
    (tmp_path / "features.bytes").write_bytes(files["features.bytes"])
    # So TensorBoard finds out that it is none.
    with pytest.raises(UnicodeDecodeError):
        projector._read_tensor_tsv_file(str(tmp_path / "features.bytes"))
    read = projector._read_tensor_binary_file(str(tmp_path / "features.bytes"), (3, 4))
    np.testing.assert_allclose(read, features, rtol=1e-4, atol=1e-30)
