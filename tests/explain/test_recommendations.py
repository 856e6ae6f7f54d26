"""What speaks against a whole recipe: every part is asked, reasons and changes name recipe keys."""

from pathlib import Path

import pytest
import torch

from sslkit import plugins
from sslkit.explain.proposals import changed, propose
from sslkit.explain.recommendations import recommendations, run_context
from sslkit.recipe import load
from sslkit.recipe.files import builtin_recipes

WARY = '''
from sslkit import Centering, Recommendation


class Wary(Centering):
    """Never content."""

    def recommend(self, context):
        yield Recommendation(f"{context.num_images} images", "nowhere", {"momentum": 0.5})
'''

SMALL = """\
method:
  backbone: {TimmBackbone: {name: test_resnet}}
  head: {DINOHead: {num_prototypes: 16, hidden_dim: 8, embed_dim: 4}}
  teacher: {EMA: {momentum: 0.99}}
  collapse: {Centering: {temperature: 0.04}}
  loss: CrossEntropy
views: {MultiCrop: {crop_on: device, canvas_size: 32, global_size: 32, num_local_views: 0}}
data: {train: Textures, num_images: 4000}
optimization: {optimizer: AdamW, batch_size: 40, epochs: 20, lr: 1e-3}
"""


SHALLOW = {
    "vit": "{depth: 1, embed_dim: 24, num_heads: 2}",
    "res": "{layers: [1, 1, 1, 1], channels: [8, 8, 8, 16]}",
}
"""What is left of a timm network, by the beginning of its name; nothing that is asked for depends on its size."""


@pytest.fixture
def write(tmp_path):
    def write_recipe(text=SMALL, name="small.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write_recipe


def found(name, *words, images=None, processes=1):
    """Return the recommendations of a recipe; its weights are not made."""
    recipe = load(name, words)
    builder = recipe.builder()
    images = images or recipe.root.at("data.num_images") or len(builder.build("data.train"))
    with torch.device("meta"):
        return recommendations(recipe, builder, run_context(builder, images, processes))


def said(*arguments, **options):
    return [(recommendation.reason, dict(recommendation.changes)) for recommendation in found(*arguments, **options)]


def test_there_are_shipped_recipes():
    assert len(builtin_recipes()) >= 30


@pytest.mark.parametrize("name", builtin_recipes())
def test_nothing_speaks_against_a_shipped_recipe(name):
    backbone = load(name).root.at("method.backbone.name")
    assert found(name, "--method.backbone.model_args", SHALLOW[backbone[:3]]) == []


def test_a_setting_holds_what_the_recipe_says():
    recipe = load("swav-resnet50-batch-256", ["--runtime.accumulation", "2"])
    with torch.device("meta"):
        context = run_context(recipe.builder(), 12_800, processes=4)
    assert (context.num_images, context.batch_size, context.processes, context.micro_batches) == (12_800, 256, 4, 2)
    assert (context.clock.step, context.clock.steps_per_epoch, context.clock.total_steps) == (0, 50, 400 * 50)
    assert (context.student_views, context.teacher_views, context.num_prototypes) == (8, 2, 3000)
    assert (context.shares_weights, context.has_predictor, context.has_operator) == (True, False, True)
    assert context.learning_rate == pytest.approx(0.6)
    with torch.device("meta"):
        byol = run_context(load("byol-vit-small").builder(), 12_800)
    assert (byol.shares_weights, byol.has_predictor, byol.has_operator) == (False, True, False)


def test_the_learning_rate_is_its_highest(write):
    lr = ["--optimization.lr", "{Cosine: {start: 0.01, end: 0, warmup: 3 epochs}}"]
    context = run_context(load(write(), [*lr, "--optimization.lr_reference_batch", "20"]).builder(), 4000)
    assert context.learning_rate == pytest.approx(0.02, rel=1e-4)


def test_a_small_recipe_is_free_of_concerns(write):
    assert said(write()) == []


def test_more_images_in_a_batch_than_there_are(write):
    recommendation = found(write(), images=39)[0]
    assert recommendation.reason == "optimization.batch_size: 40 is more than the 39 images, which training refuses"
    assert recommendation.changes == {"optimization.batch_size": 4}
    assert not [each for each in found(write(), images=40) if "optimization.batch_size" in each.changes]


@pytest.mark.parametrize(
    ("words", "processes", "images"),
    [
        ([], 1, None),
        (["--method.batch_norm", "local"], 2, None),  # 20 each
        (["--method.batch_norm", "local"], 4, 10),
        (["--method.batch_norm", "synchronized"], 4, None),
        (["--runtime.accumulation", "2"], 1, None),
        (["--runtime.accumulation", "4"], 1, 10),
        (["--method.batch_norm", "10"], 1, 10),
        (["--method.batch_norm", "20"], 1, None),
        (["--optimization.batch_size", "15"], 1, 15),
        (["--optimization.batch_size", "16"], 1, None),
    ],
)
def test_batch_norms_of_few_images(words, processes, images, write):
    chosen = ["--optimization.lr", "1e-3", "--method.teacher.momentum", "0.99"]
    reasons = [reason for reason, _ in said(write(), *chosen, *words, processes=processes)]
    said_so = f"method.batch_norm: statistics of {images} images are noisy; the error grows below 16"
    assert reasons == ([said_so] if images else [])


def test_without_batch_norm_a_batch_may_be_small(write):
    backbone = ["--method.backbone", "{TimmBackbone: {name: test_vit, model_args: {img_size: 32}}}"]
    words = ["--optimization.batch_size", "2", "--optimization.lr", "1e-3", "--method.teacher.momentum", "0.99"]
    assert said(write(), *backbone, *words) == []
    with_norm = said(write(), *backbone, *words, "--method.head.batch_norm", "true")
    assert [reason.partition(":")[0] for reason, _ in with_norm] == ["method.batch_norm"]


def test_what_is_frozen_as_long_as_the_run(write):
    [(reason, changes)] = said(write(), "--optimization.freeze.prototypes", "20 epochs")
    assert reason.startswith("optimization.freeze.prototypes lasts as long as the run or longer: 2,000 of 2,000 steps")
    assert changes == {"optimization.freeze.prototypes": "2 epochs"}
    assert said(write(), "--optimization.freeze.prototypes", "6 epochs") == []


def test_schedules_inside_components_are_asked(write):
    momentum = "{Cosine: {start: 0.99, end: 1, warmup: 30 epochs, warmup_from: 0.9}}"
    [(reason, changes)] = said(write(), "--method.teacher.momentum", momentum)
    assert reason.startswith("method.teacher.momentum: warmup lasts as long as the run")
    assert changes == {"method.teacher.momentum.warmup": "2 epochs"}


def test_a_component_of_a_plugin_warns_about_itself(write, tmp_path):
    (tmp_path / "wary.py").write_text(WARY)
    with plugins.using([tmp_path / "wary.py"]):
        [recommendation] = found(write(), "--method.collapse", "Wary", images=4000)
    assert str(recommendation) == "method.collapse: 4000 images (nowhere)"
    assert recommendation.changes == {"method.collapse.momentum": 0.5}


# What a number was written for


LARGER = "base: small.yaml\noptimization: {batch_size: 160}\n"


RATES = ("method.teacher.momentum", "optimization.lr_reference_batch")

ZIGZAG = """
from sslkit import Schedule


class Zigzag(Schedule):
    def __call__(self, clock):
        return 1e-3 * (1 + clock.step % 2)
"""


def keys(concerns_):
    return sorted(key for recommendation in concerns_ for key in recommendation.changes)


def test_numbers_of_a_lower_file_were_written_for_its_batch_and_images(write):
    write()
    file = write(LARGER, "larger.yaml")
    lr, momentum = found(file)
    assert (lr.is_warning, momentum.is_warning) == (False, False)
    assert lr.changes == {"optimization.lr_reference_batch": 40}
    assert momentum.changes == {"method.teacher.momentum": 0.97}  # 0.99 ** 4 = 0.961 is shorter than any published
    assert (
        "chosen for 100 steps an epoch, a half-life of 0.69 epochs; with 25 steps it is 2.8 epochs" in momentum.reason
    )
    assert "method.teacher.momentum" in keys(found(write(), images=16_000))


@pytest.mark.parametrize(
    ("key", "value", "own"),
    [
        ("method.teacher.momentum", "0.98", LARGER + "method: {teacher: {momentum: 0.98}}\n"),
        ("optimization.lr", "2e-3", LARGER.replace("{", "{lr: 2e-3, ")),
    ],
)
def test_whoever_writes_a_number_anew_has_this_batch_in_mind(key, value, own, write):
    write()

    def judged(*arguments):
        return [
            recommendation
            for recommendation in found(*arguments)
            if any(each.startswith(key) for each in recommendation.changes)
        ]

    assert judged(write(LARGER, "larger.yaml"))
    assert not judged(write(LARGER, "larger.yaml"), f"--{key}", value)
    assert not judged(write(own, "own.yaml"))


def test_a_learning_rate_that_is_scaled_already_is_left_alone(write):
    assert keys(found(write(), "--optimization.batch_size", "80")) == [*RATES]
    scaled = ["--optimization.batch_size", "80", "--optimization.lr_reference_batch", "40"]
    assert keys(found(write(), *scaled)) == ["method.teacher.momentum"]


def test_a_learning_rate_is_scaled_as_training_scales_it(write):
    schedule = "{Cosine: {start: 0.001, end: 1e-4, warmup: 2 epochs, warmup_from: 5e-4}}"
    file, larger = write(SMALL.replace("lr: 1e-3", f"lr: {schedule}")), {"optimization.batch_size": 60}
    settled, mended = propose(changed(load(file), larger), 4000)
    assert {"optimization.lr_reference_batch": 40} in [recommendation.changes for recommendation in settled]
    rate = mended.builder().build("optimization").learning_rate
    assert (rate.start, rate.end, rate.warmup_from) == pytest.approx((0.0015, 1e-4, 0.00075))


def test_a_schedule_that_does_not_say_its_peak_is_not_scaled(write, tmp_path):
    (tmp_path / "zigzag.py").write_text(ZIGZAG)
    with plugins.using([tmp_path / "zigzag.py"]):
        file = write(SMALL.replace("lr: 1e-3", "lr: Zigzag"))
        assert keys(found(file, "--optimization.batch_size", "80")) == ["method.teacher.momentum"]


def test_what_is_not_known_is_not_guessed(write, tmp_path):
    file = write(SMALL.replace("num_images: 4000", "num_images: null"))
    assert keys(found(file, "--optimization.batch_size", "160")) == [*RATES]
    other = ["--data.train", "{Textures: {num_images: 999}}", "--optimization.batch_size", "160"]
    assert keys(found(file, *other)) == []
    Path(tmp_path / "part.yaml").write_text("method: {teacher: {EMA: {momentum: 0.99}}}\n")
    whole = SMALL.replace("  teacher: {EMA: {momentum: 0.99}}\n", "")
    assert keys(found(write(f"base: part.yaml\n{whole}", "whole.yaml"))) == []
