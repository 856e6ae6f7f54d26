import json
import logging
import os
import signal

import pytest
import timm
import torch
from torch import Tensor

from sslkit.backbones.loading import load_model
from sslkit.backbones.raw_pixels import RawPixels
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.contracts import Evaluator, ImageSource
from sslkit.errors import DataError, SSLKitError, UnknownName, UnreadableImage
from sslkit.evaluation.evaluate import evaluate
from sslkit.evaluation.images import evaluation_data, labelled
from sslkit.evaluators.knn import KNN
from sslkit.types import Preprocessing, Sample


class Squares(ImageSource):
    """Image i is filled with i; a damaged one cannot be read."""

    def __init__(self, num_images, labels=None, damaged=(), name="squares", class_names=None):
        self.class_names = class_names
        self.keys, self.labels, self.name, self.damaged = torch.arange(num_images), labels, name, damaged

    def read(self, index):
        if index in self.damaged:
            raise UnreadableImage(f"{index}.png", "truncated")
        return Sample(torch.full((3, 4, 4), index, dtype=torch.uint8), index)


class Brightness(Evaluator):
    command = "brightness"
    protocol = "brightness-v1"
    needs_labels = False

    def run(self, backbone, data):
        values = torch.cat([backbone(images).cls for images, _ in data.test.batches()])
        yield "brightness/mean", values.mean().item()


def as_float(image: Tensor) -> Tensor:
    return image.float()


def contents(part):
    batches = list(part.batches())
    images = torch.cat([images[:, 0, 0, 0] for images, _ in batches]).int().tolist()
    return images, [labels for _, labels in batches]


def test_batches_hold_views_and_labels_in_order():
    part = labelled(Squares(7, torch.tensor([0, 1, 2, 0, 1, 2, 9])), as_float, batch_size=3)
    assert (part.name, part.num_images, part.num_classes) == ("squares", 7, 4)
    for _ in range(2):
        images, labels = contents(part)
        assert images == list(range(7))
        assert torch.cat(labels).tolist() == [0, 1, 2, 0, 1, 2, 9]


def test_workers_read_the_same():
    source = Squares(9, torch.arange(9), damaged=(4,))
    images, labels = contents(labelled(source, as_float, batch_size=2, num_workers=1))
    assert images == [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.cat(labels).tolist() == images


@pytest.mark.parametrize("labels", [None, torch.full((4,), -1)])
def test_images_without_labels(labels):
    part = labelled(Squares(4, labels), as_float)
    assert part.num_classes is None
    assert contents(part)[1] == [None]


def test_a_limit_takes_the_same_images_in_order_and_misses_no_class_of_a_periodic_source():
    images, _ = contents(labelled(Squares(80), as_float, limit=40))
    assert images == contents(labelled(Squares(80), as_float, limit=40))[0] == sorted(set(images))
    # Every second image would be even alone; the images of the package's own textures come in such a period.
    assert len(images) == 40
    assert {image % 8 for image in images} == set(range(8))
    assert contents(labelled(Squares(3), as_float, limit=4))[0] == [0, 1, 2]


def test_unreadable_images_are_left_out_counted_and_named_once(caplog):
    part = labelled(Squares(6, torch.arange(6), damaged=(0, 1, 4), name="photos"), as_float, batch_size=2)
    with caplog.at_level(logging.WARNING, "sslkit.evaluation"):
        for _ in range(2):
            images, labels = contents(part)
    assert images == [2, 3, 5] == torch.cat(labels).tolist()
    (message,) = caplog.messages
    assert message.startswith("photos: 3 unreadable images left out: 0.png: truncated; 1.png")


def test_nothing_readable_is_an_error():
    with pytest.raises(DataError, match=r"none of 2 images can be read.*0\.png: truncated"):
        list(labelled(Squares(2, damaged=(0, 1)), as_float).batches())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_readers_leave_interruptions_to_whoever_evaluates(number):
    class Interrupting(Squares):
        def read(self, index):
            if os.getpid() != parent:
                os.kill(os.getpid(), number)
            return super().read(index)

    parent = os.getpid()
    batches = labelled(Interrupting(3), as_float, batch_size=2, num_workers=1).batches()
    assert [len(images) for images, _ in batches] == [2, 1]


def test_rows_say_what_was_measured():
    preprocessing = Preprocessing(3, (0.5,) * 3, (0.5,) * 3, None, size=4, resize=4)
    train = Squares(8, torch.arange(8) % 2, name="squares train")
    data = evaluation_data(train, Squares(3, torch.arange(3) % 2), preprocessing)
    rows = evaluate(RawPixels(), [KNN(k=(1,)), Brightness()], data, network="teacher", step=12)
    mean = (2 * 1 / 255 - 1.0) * 1.0
    assert rows[1] == {
        "step": 12,
        "network": "teacher",
        "evaluator": "brightness",
        "protocol": "brightness-v1",
        "dataset": "squares",
        "metrics": {"brightness/mean": pytest.approx(mean)},
    }
    assert (rows[0]["evaluator"], rows[0]["protocol"]) == ("knn", KNN().protocol)
    assert list(rows[0]["metrics"]) == ["knn/top1@1"]
    assert evaluate(RawPixels(), [Brightness()], data, network="x", dataset="mine")[0]["dataset"] == "mine"
    json.dumps(rows)


def test_evaluators_of_labels_skip_unlabelled_images_with_one_line(caplog):
    preprocessing = Preprocessing(3, (0.5,) * 3, (0.5,) * 3, None, size=4, resize=4)
    data = evaluation_data(Squares(4, name="wild"), Squares(4, torch.arange(4)), preprocessing)
    with caplog.at_level(logging.WARNING, "sslkit.evaluation"):
        rows = evaluate(RawPixels(), [KNN(), Brightness()], data, network="teacher")
        evaluate(RawPixels(), [KNN()], evaluation_data(Squares(4), Squares(4), preprocessing), network="teacher")
    assert [row["evaluator"] for row in rows] == ["brightness"]
    assert caplog.messages == ["knn skipped: no labels in wild", "knn skipped: no labels in squares"]


ANIMALS = Squares(6, torch.arange(6) % 3, name="animals", class_names=["ant", "bee", "cat"])
PLAIN = Preprocessing(3, (0.5,) * 3, (0.5,) * 3, None, size=4, resize=4)


def test_classes_meet_by_name_where_two_folders_number_them_apart():
    test = Squares(4, torch.tensor([1, 0, 1, -1]), name="others", class_names=["ant", "cat"])
    data = evaluation_data(ANIMALS, test, PLAIN, batch_size=9)
    assert contents(data.train)[1][0].tolist() == [0, 1, 2, 0, 1, 2]
    assert contents(data.test)[1][0].tolist() == [2, 0, 2, -1]
    assert test.labels.tolist() == [1, 0, 1, -1]
    limited = evaluation_data(ANIMALS, test, PLAIN, batch_size=9, limit=2).test
    ((images, labels),) = limited.batches()
    numbers = ((images[:, 0, 0, 0] * 0.5 + 0.5) * 255).round().int().tolist()
    assert labels.tolist() == [[2, 0, 2, -1][number] for number in numbers]


def test_numbers_count_where_a_source_has_no_class_names():
    data = evaluation_data(ANIMALS, Squares(2, torch.tensor([7, 0])), PLAIN)
    assert contents(data.test)[1][0].tolist() == [7, 0]


def test_a_class_that_training_does_not_know_is_named():
    test = Squares(3, torch.tensor([0, 1, 1]), name="others", class_names=["ant", "bea", "unused"])
    with pytest.raises(DataError, match=r"others: the class 'bea' is unknown to animals\. Did you mean 'bee'\?"):
        evaluation_data(ANIMALS, test, PLAIN)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_the_view_refuses_is_one_message(num_workers):
    preprocessing = Preprocessing(4, (0.5,) * 4, (0.5,) * 4, None, size=4, resize=4)
    data = evaluation_data(Squares(2), Squares(2), preprocessing, num_workers=num_workers)
    with pytest.raises(DataError, match=r"^an image has 3 channels, the views were built for 4: see data\.channels$"):
        contents(data.train)


@pytest.fixture
def run_folder(tmp_path):
    torch.manual_seed(0)
    (tmp_path / "recipe.yaml").write_text("method: {}\n")
    for network in ("teacher", "student"):
        TimmBackbone("test_vit", in_chans=2).save(tmp_path / network)
    preprocessing = {
        "channels": 2,
        "mean": [0.1, 0.2],
        "std": [0.3, 0.4],
        "value_range": [0, 9],
        "size": 32,
        "resize": 40,
    }
    (tmp_path / "data.json").write_text(json.dumps(preprocessing))
    return tmp_path


def test_a_run_gives_the_network_asked_for_and_the_statistics_of_its_data(run_folder):
    teacher, student = load_model(str(run_folder)), load_model(str(run_folder), "student")
    assert (teacher.network, student.network) == ("teacher", "student")
    assert teacher.preprocessing == Preprocessing(2, [0.1, 0.2], [0.3, 0.4], [0, 9], 32, 40)
    assert teacher.backbone.in_chans == 2
    assert not teacher.backbone.training
    images = torch.randn(2, 2, 32, 32)
    saved = TimmBackbone.load(run_folder / "student").eval()
    assert torch.equal(student.backbone(images).cls, saved(images).cls)
    assert not torch.equal(teacher.backbone(images).cls, saved(images).cls)
    directly = load_model(str(run_folder / "student"))
    assert (directly.network, directly.preprocessing) == ("student", student.preprocessing)


def test_a_folder_that_timm_wrote(tmp_path):
    model = timm.create_model("test_vit", num_classes=0)
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    loaded = load_model(str(tmp_path))
    images = torch.randn(1, 3, 160, 160)
    assert torch.equal(loaded.backbone(images).cls, model.eval()(images))
    assert loaded.preprocessing == Preprocessing(3, (0.5,) * 3, (0.5,) * 3, None, 160, 183)


def test_weights_are_raised_to_float32(tmp_path):
    TimmBackbone("test_vit").bfloat16().save(tmp_path)
    assert load_model(str(tmp_path)).backbone.model.cls_token.dtype == torch.float32


def test_untrained_weights_are_the_same_each_time_and_leave_the_random_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = load_model("untrained:test_vit"), load_model("untrained:test_vit")
    assert torch.equal(torch.get_rng_state(), before)
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(first.backbone(images).cls, second.backbone(images).cls)
    assert first.preprocessing.mean == (0.485, 0.456, 0.406)
    assert load_model("untrained:test_vit", channels=5).preprocessing.channels == 5


def test_raw_pixels_and_their_variants():
    assert load_model("raw-pixels").backbone.variant == "plain"
    assert load_model("raw-pixels:gray-centered").network == "raw-pixels (gray-centered)"
    with pytest.raises(UnknownName, match="Did you mean 'centered'"):
        load_model("raw-pixels:centred")


def test_models_that_are_not_there(run_folder, tmp_path):
    with pytest.raises(UnknownName, match=r"unknown network 'techer'. Did you mean 'teacher'\? Choices: student"):
        load_model(str(run_folder), "techer")
    with pytest.raises(SSLKitError, match=r"nowhere does not exist. MODEL is a run folder"):
        load_model(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SSLKitError, match="holds neither a run nor a backbone"):
        load_model(str(tmp_path / "empty"))
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "recipe.yaml").touch()
    with pytest.raises(SSLKitError, match="has not saved its networks yet"):
        load_model(str(tmp_path / "young"))
    with pytest.raises(UnknownName, match="Did you mean 'test_vit'"):
        load_model("untrained:tst_vit")


@pytest.mark.parametrize("name", ["Nonsense", "os.system", "json:JSONDecoder"])
def test_a_folder_does_not_choose_what_is_imported(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"sslkit": {"backbone": name}}))
    with pytest.raises(UnknownName, match=r"config\.json: unknown backbone.*Choices: .*TimmBackbone"):
        load_model(str(tmp_path))


def test_damaged_folders_are_named(tmp_path):
    TimmBackbone("test_vit").save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(SSLKitError, match="cannot load this backbone"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SSLKitError, match="cannot load this backbone"):
        load_model(str(tmp_path))
    (tmp_path / "data.json").write_text('{"mean": []}')
    TimmBackbone("test_vit").save(tmp_path)
    with pytest.raises(SSLKitError, match=r"data\.json"):
        load_model(str(tmp_path))
