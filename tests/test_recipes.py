"""Every recipe in the repository builds and takes a shrunk step; the numbers that were published are in them."""

import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from sslkit.launch import train
from sslkit.recipe import load
from sslkit.recipe.sections import Method
from sslkit.recipe.signature import parameters
from sslkit.recipe.specification import ComponentSpec
from sslkit.recipe.validation import chosen_views
from sslkit.run_folder.metrics_log import read_metrics
from sslkit.schedules import value_at
from sslkit.types import matching_pairs

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
NAMES = [path.stem for path in RECIPES]

SHRUNK = [
    "--optimization.batch_size", "4",
    "--optimization.steps", "1",
    "--runtime.device", "cpu",
    "--runtime.num_workers", "0",
    "--runtime.threads", "1",
    "--evaluation.every", "null",
    "--evaluation.networks", "[teacher]",
    "--evaluation.baselines", "[]",
    "--evaluation.crop_pct", "null",
    "--evaluation.view_size", "null",
]  # fmt: skip

AT_MOST = {
    "method.head.hidden_dim": 16,
    "method.head.embed_dim": 8,
    "method.head.num_prototypes": 32,
    "method.predictor.hidden_dim": 16,
    "method.collapse.size": 16,
    "method.collapse.queue_size": 8,
    "method.batch_norm": 2,
    "views.global_size": 32,
    "views.local_size": 16,
}
"""Numbers that are cut down to this where a recipe has larger ones."""

SHALLOW = {
    "vit": "{depth: 1, embed_dim: 24, num_heads: 2}",
    "resnet": "{layers: [1, 1, 1, 1], channels: [8, 8, 8, 16]}",
}
"""What is left of a timm network, by the beginning of its name."""


def test_every_method_comes_in_every_setting():
    settings = ["resnet50", "vit-small", "cifar10-resnet18", "cifar10-vit", "cifar10-tiny"]
    methods = {
        "dino": ["vit-small-no-local", "vit-small-6-local"],
        "byol": ["vit-small-6-local", "vit-small-10-local"],
        "moco-v2": ["vit-small-6-local", "vit-small-10-local"],
        "swav": ["vit-small-no-local", "vit-small-10-local"],
    }
    expected = {f"{method}-{context}" for method, more in methods.items() for context in [*settings, *more]}
    assert expected | {"quickstart", "quickstart-objects"} <= {*NAMES}


def number_at(recipe, key):
    """Return a number that a recipe's classes have under a dotted key, or 0."""
    part, _, name = key.rpartition(".")
    spec = recipe.root.at(part)
    value = spec.at(name) if isinstance(spec, ComponentSpec) and name in parameters(spec.cls) else 0
    return value if isinstance(value, int) else 0


def shrunk(path):
    """Return the recipe on a few small textures, its networks shallow and narrow."""
    recipe = load(path)
    channels = recipe.root.at("data.channels")
    textures = f"num_images: 8, size: 32, channels: {channels}"
    words = [*SHRUNK, "--data.train", f"{{Textures: {{{textures}}}}}"]
    words += ["--data.test", f"{{Textures: {{{textures}, split: test}}}}"]
    backbone = recipe.root.at("method.backbone.name")
    words += ["--method.backbone.model_args", next(args for kind, args in SHALLOW.items() if backbone.startswith(kind))]
    for key, limit in AT_MOST.items():
        if number_at(recipe, key) > limit:
            words += [f"--{key}", str(limit)]
    return load(path, words)


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_every_recipe_resolves_builds_and_takes_a_step(path, tmp_path):
    recipe = shrunk(path)
    assert load(_written(recipe, tmp_path)).resolved == recipe.resolved

    run = train(recipe, tmp_path / "run", console=Console(file=StringIO()))
    assert run.clock.step == 1
    [row] = read_metrics(run.folder.metrics)
    assert row["loss"] > 0
    evaluators = run.built.evaluation.evaluators
    assert [row["network"] for row in run.results] == ["teacher"] * len(evaluators)
    assert (run.folder.path / "teacher" / "model.safetensors").exists()


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_every_recipe_is_known_by_what_its_run_folder_says(path, tmp_path):
    recipe = load(path)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert recipe.identity_in(tmp_path, ["ab"]) == recipe.identity(["ab"]) != recipe.identity_in(tmp_path, ["cd"])


def _written(recipe, folder):
    (folder / "resolved.yaml").write_text(recipe.to_yaml())
    return folder / "resolved.yaml"


# Each line written from the publications and their code, not from the recipe: epochs, batch, steps in all; learning
# rate at the first step, at its peak and where it tends to; weight decay and teacher momentum, first and last; pairs of
# views that the loss compares; steps in which prototypes keep still.
COSINE_EMA = (0.996, 1.0)
TIMES = {
    "dino-resnet50": (100, 512, 2502 * 100, (0, 0.06, 1e-6), (1e-4, 1e-4), COSINE_EMA, 2 * 10 - 2, 2502),
    "byol-resnet50": (1000, 4096, 312 * 1000, (0, 3.2, 0), (1.5e-6, 1.5e-6), COSINE_EMA, 2, 0),
    "moco-v2-resnet50": (800, 256, 5004 * 800, (0.03, 0.03, 0), (1e-4, 1e-4), (0.999, 0.999), 1, 0),
    "swav-resnet50": (800, 4096, 312 * 800, (0.3, 4.8, 0.0048), (1e-6, 1e-6), None, 2 * 8 - 2, 313),
    "swav-resnet50-batch-256": (400, 256, 5004 * 400, (0.6, 0.6, 0.0006), (1e-6, 1e-6), None, 2 * 8 - 2, 5005),
    "dino-vit-small": (300, 1024, 1251 * 300, (0, 0.002, 1e-6), (0.04, 0.4), COSINE_EMA, 2 * 12 - 2, 1251),
    "dino-vit-small-no-local": (300, 1024, 1251 * 300, (0, 0.002, 1e-5), (0.04, 0.4), COSINE_EMA, 2, 1251),
    "dino-vit-small-6-local": (300, 1024, 1251 * 300, (0, 0.002, 1e-6), (0.04, 0.4), COSINE_EMA, 2 * 8 - 2, 1251),
    "byol-vit-small": (300, 1024, 1251 * 300, (0, 0.002, 1e-5), (0.05, 0.05), COSINE_EMA, 2, 0),
    "byol-vit-small-6-local": (300, 1024, 1251 * 300, (0, 0.002, 1e-5), (0.05, 0.05), COSINE_EMA, 14, 0),
    "byol-vit-small-10-local": (300, 1024, 1251 * 300, (0, 0.002, 1e-5), (0.05, 0.05), COSINE_EMA, 22, 0),
    "moco-v2-vit-small": (300, 1024, 1251 * 300, (0, 0.002, 1e-5), (0.05, 0.05), COSINE_EMA, 2, 0),
    "moco-v2-vit-small-6-local": (300, 1024, 1251 * 300, (0, 0.002, 1e-5), (0.05, 0.05), COSINE_EMA, 14, 0),
    "moco-v2-vit-small-10-local": (300, 1024, 1251 * 300, (0, 0.002, 1e-5), (0.05, 0.05), COSINE_EMA, 22, 0),
    "swav-vit-small": (300, 1024, 1251 * 300, (0, 0.002, 1e-6), (0.04, 0.4), None, 14, 1251),
    "swav-vit-small-no-local": (300, 1024, 1251 * 300, (0, 0.002, 1e-5), (0.04, 0.4), None, 2, 1251),
    "swav-vit-small-10-local": (300, 1024, 1251 * 300, (0, 0.002, 1e-6), (0.04, 0.4), None, 22, 1251),
    "dino-cifar10-resnet18": (200, 128, 390 * 200, (0.06, 0.06, 0), (5e-4, 5e-4), (0.99, 0.99), 2, 0),
    "byol-cifar10-resnet18": (200, 128, 390 * 200, (0.03, 0.03, 0), (1e-3, 1e-3), (0.99, 0.99), 2, 0),
    "moco-v2-cifar10-resnet18": (200, 128, 390 * 200, (0.06, 0.06, 0), (5e-4, 5e-4), (0.99, 0.99), 2, 0),
    "swav-cifar10-resnet18": (200, 128, 390 * 200, (0.001, 0.001, 0), (1e-6, 1e-6), None, 2, 0),
}


@pytest.mark.parametrize("name", TIMES)
def test_times_and_rates_are_the_published_ones(name):
    recipe = load(name)
    builder = recipe.builder()
    plan, teacher = builder.build("optimization"), builder.build("method.teacher")
    clock = plan.clock(recipe.root.at("data.num_images"))
    starts = [clock.at(step) for step in range(0, clock.total_steps, clock.steps_per_epoch)]
    rates = [plan.learning_rate(start) for start in starts]
    ends = clock, clock.at(clock.total_steps)
    momentum = getattr(teacher, "momentum", None)
    frozen = plan.freezes.get("prototypes")
    epochs, batch_size, steps, rate, decay, momenta, pairs, still = TIMES[name]
    assert (plan.epochs, plan.batch_size, clock.total_steps) == (epochs, batch_size, steps)
    assert (rates[0], max(rates), plan.learning_rate(ends[1])) == pytest.approx(rate, abs=1e-12)
    assert tuple(value_at(plan.weight_decay, end) for end in ends) == pytest.approx(decay)
    assert momenta == (momentum if momentum is None else tuple(value_at(momentum, end) for end in ends))
    assert number_of_pairs(recipe) == pairs
    assert (frozen.steps(clock) if frozen else 0) == still


def number_of_pairs(recipe):
    chosen = {f"{network}_views": recipe.root.at(f"method.{network}_views") for network in ("student", "teacher")}
    method = Method(None, None, None, None, None, **chosen)
    student, teacher = chosen_views(method, recipe.builder().build("views"))
    return len(matching_pairs(teacher, student))


# As above: what the loss, the operator, the networks and the views were told.
GAMMA_1 = {"zero_init_last": False}
SAID = {
    "dino-resnet50": {
        "method.backbone.model_args": GAMMA_1,
        "method.collapse.temperature": 0.04,
        "method.head.num_prototypes": 65536,
        "optimization.optimizer.decays_vectors": False,
        "optimization.clip_grad_norm": 3.0,
        "views.global_scale": [0.14, 1.0],
        "views.local_scale": [0.05, 0.14],
    },
    "byol-resnet50": {
        "method.backbone.model_args": GAMMA_1,
        "method.loss.reduction": "sum",
        "method.init": "independent",
        "method.separate_views": True,
        "method.head.hidden_dim": 4096,
        "method.head.last_bias": False,
        "method.predictor.hidden_dim": 4096,
        "optimization.optimizer.trust": 1e-3,
        "optimization.clip_grad_norm": None,
        "views.global_scale": [0.08, 1.0],
        "views.global_blur": [1.0, 0.1],
        "views.global_solarize": [0.0, 0.2],
    },
    "moco-v2-resnet50": {
        "views.interpolation": "bilinear",
        "method.backbone.model_args": GAMMA_1,
        "method.collapse.size": 65536,
        "method.loss.temperature": 0.2,
        "method.head.batch_norm": False,
        "method.head.embed_dim": 128,
        "method.batch_norm": 32,
        "method.student_views": [0],
        "method.teacher_views": [1],
        "optimization.optimizer.decays_vectors": True,
        "views.global_scale": [0.2, 1.0],
        "views.saturation": 0.4,
        "views.global_blur": [0.5, 0.5],
        "views.global_solarize": [0.0, 0.0],
    },
    "swav-resnet50": {
        "views.interpolation": "bilinear",
        "method.backbone.model_args": GAMMA_1,
        "method.collapse.epsilon": 0.05,
        "method.collapse.num_iters": 3,
        "method.collapse.queue_size": 0,
        "method.head.num_prototypes": 3000,
        "method.head.embed_dim": 128,
        "optimization.optimizer.trust": 1e-3,
        "data.std": [0.228, 0.224, 0.225],
        "views.global_scale": [0.14, 1.0],
        "views.local_scale": [0.05, 0.14],
        "views.brightness": 0.8,
        "views.hue": 0.2,
        "views.local_blur": 0.5,
    },
    "swav-resnet50-batch-256": {"method.collapse.queue_size": 3840, "method.collapse.queue_start": "15 epochs"},
    "dino-vit-small": {"method.backbone.positions": "dino"},
    "dino-vit-small-no-local": {"optimization.clip_grad_norm": None, "views.global_scale": [0.14, 1.0]},
    "byol-vit-small": {"method.head.batch_norm": True, "method.head.num_prototypes": None, "method.collapse": None},
    "moco-v2-vit-small-6-local": {
        "method.loss.temperature": 0.1,
        "method.collapse.size": 65536,
        "method.head.num_layers": 3,
        "method.head.embed_dim": 256,
        "optimization.clip_grad_norm": None,
    },
    "swav-vit-small": {"method.collapse.epsilon": 0.05, "method.head.num_prototypes": 65536},
    "dino-cifar10-resnet18": {"method.backbone.small_image_stem": True, "method.backbone.model_args": GAMMA_1},
    "moco-v2-cifar10-resnet18": {"method.collapse.size": 4096, "method.loss.temperature": 0.1, "method.batch_norm": 16},
}


@pytest.mark.parametrize("name", SAID)
def test_parts_and_views_are_told_what_was_published(name):
    root = load(name).root
    said = {key: root.at(key) for key in SAID[name]}
    assert {key: [*value] if isinstance(value, tuple) else value for key, value in said.items()} == SAID[name]


@pytest.mark.parametrize("name", ["moco-v2-resnet50", "dino-cifar10-resnet18"])
def test_rates_that_were_held_for_an_epoch_are_held(name):
    recipe = load(name)
    plan = recipe.builder().build("optimization")
    clock = plan.clock(recipe.root.at("data.num_images"))
    of_epoch, next_epoch = plan.learning_rate(clock), plan.learning_rate(clock.at(clock.steps_per_epoch))
    assert plan.learning_rate(clock.at(clock.steps_per_epoch - 1)) == of_epoch > next_epoch


def row(path):
    """Return a recipe's line of the table in docs/recipes.md."""
    recipe = load(path)
    root, maker = recipe.root, recipe.builder().build("views")
    sizes = [f"{maker.sizes.count(size)} x {size}" for size in sorted({*maker.sizes}, reverse=True)]
    train_on = root.at("data.train")
    images = train_on.given["path"].rpartition("/")[2] if "path" in train_on.given else train_on.name.lower()
    [result] = re.findall(r"^# Result +(.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    figures = [re.search(rf"{probe} (\d+\.\d)", result) for probe in ("k-NN", "linear")]
    cells = [
        f"[{path.stem}](../recipes/{path.name})",
        root.at("method.backbone.name").removesuffix("_patch16_224"),
        images,
        " + ".join(sizes),
        f"{root.at('optimization.epochs'):g}",
        str(root.at("optimization.batch_size")),
        *(figure[1] if figure else "" for figure in figures),
    ]
    return f"| {' | '.join(cells)} |"


def test_the_table_of_recipes_is_the_recipes():
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[.*", text, re.MULTILINE) == [row(path) for path in sorted(RECIPES, key=lambda p: p.stem)]
