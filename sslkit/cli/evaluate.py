"""``sslkit evaluate``: measure a frozen backbone."""

import ast
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

from sslkit.cli.arguments import take_option
from sslkit.cli.screen import Screen
from sslkit.errors import SSLKitError, UnknownName
from sslkit.plugins import active
from sslkit.registry import Entry, source_of

if TYPE_CHECKING:
    from sslkit.contracts import Evaluator, ImageSource

OPTIONS = {
    "--data": "PATH: images to measure on, as a recipe's HuggingFaceImages takes them; a run's own without it",
    "--train-split": "NAME of the part to learn from (train)",
    "--test-split": "NAME of the part to be judged on (test)",
    "--network": "teacher or student of a run (teacher)",
    "--size": "PX on a side that the backbone sees; what the model says without it",
    "--resize": "PX of the shorter side before the central crop; 8/7 of --size if that is given",
    "--batch-size": "N images at once (256)",
    "--limit": "N images of each part, evenly spread",
    "--workers": "N reading processes",
    "--device": "auto, cpu, cuda, mps (auto)",
    "--output": "FILE: a results.json to which the rows are added",
}

MODELS = {
    "FOLDER": "a run, or an exported folder",
    "timm:NAME": "a pretrained timm model",
    "hf-hub:OWNER/NAME": "a timm model of the Hugging Face Hub",
    "untrained:NAME": "a timm model as it is drawn",
    "raw-pixels": "the pixels themselves: plain, centered and gray-centered, or raw-pixels:VARIANT",
}

EXAMPLES = """\
sslkit evaluate knn RUN_FOLDER --network student
sslkit evaluate knn timm:vit_small_patch16_224.dino --data ~/imagenette --k 10,20
sslkit evaluate knn raw-pixels --data ~/images --size 32 --output results.json"""


def run(argv: Sequence[str]) -> int:
    """Evaluate a model, or say what that takes."""
    words = list(argv)
    if any(word in ("-h", "--help") for word in words):
        return _help([word for word in words if not word.startswith("-")])
    options = {name: values[-1] for name in OPTIONS if (values := take_option(words, name))}
    positional = _take_positional(words)
    if len(positional) != 2:
        raise SSLKitError(f"sslkit evaluate takes an EVALUATOR and a MODEL, not {' '.join(positional) or 'nothing'}")
    evaluator = _make_evaluator(positional[0], words)
    if "--output" in options:
        _check_output(Path(options["--output"]))
    rows = [row for spec in _models(positional[1]) for row in _measure(evaluator, spec, options)]
    _show(rows)
    if "--output" in options:
        from sslkit.run_folder.results import append_results

        append_results(Path(options["--output"]), rows)
    return 0


def _check_output(path: Path) -> None:
    """Refuse before the work what could not be written after it."""
    from sslkit.run_folder.results import read_results

    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise SSLKitError(f"--output {path}: {path.parent} is not a folder that can be written to")
    try:
        rows = read_results(path)
    except (OSError, ValueError):
        rows = ()
    if not isinstance(rows, list) and path.exists():
        raise SSLKitError(f"--output {path} is not a results.json, a list of rows, and stays as it is")


def _take_positional(words: list[str]) -> list[str]:
    """Remove and return the words that are neither an option nor its value."""
    positional: list[str] = []
    rest = list(words)
    words.clear()
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            positional.append(word)
            continue
        words.append(word)
        if "=" not in word and rest:
            words.append(rest.pop(0))
    return positional


def command_of(entry: Entry) -> str:
    """Return an evaluator's command-line name, read from its source without importing it."""
    if isinstance(entry.target, type):
        return str(getattr(entry.target, "command", entry.name))
    module, _, name = entry.path.partition(":")
    source = source_of(module)
    tree = ast.parse(source.read_text(encoding="utf-8")) if source else ast.Module([], [])
    body = next((spec.body for spec in tree.body if isinstance(spec, ast.ClassDef) and spec.name == name), [])
    for item in body:
        targets = item.targets if isinstance(item, ast.Assign) else [getattr(item, "target", None)]
        value = getattr(item, "value", None)
        if isinstance(value, ast.Constant) and any(isinstance(t, ast.Name) and t.id == "command" for t in targets):
            return str(value.value)
    return entry.name


def _find(name: str) -> Entry:
    entries = {command_of(entry): entry for entry in active().registry.entries("evaluators")}
    by_class = {entry.name: entry for entry in entries.values()}
    if name not in entries and name not in by_class:
        raise UnknownName("evaluator", name, entries)
    return entries.get(name) or by_class[name]


def _make_evaluator(name: str, words: Sequence[str]) -> "Evaluator":
    from sslkit.recipe.build import Builder
    from sslkit.recipe.layers import merge_layers, read_overrides
    from sslkit.recipe.signature import parameters
    from sslkit.recipe.specification import fill

    registry = active().registry
    entry = _find(name)
    found = registry.get("evaluators", entry.name)
    known = parameters(found)
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    for option in options:
        if option.removeprefix("--").partition(".")[0] not in known:
            raise UnknownName("option", option, [*OPTIONS, *(f"--{key}" for key in known)])
    given: dict[str, Any] = merge_layers(read_overrides(words))
    for key, value in given.items():
        given[key] = _as_list(value) if get_origin(known[key].hint) in (list, tuple, Sequence) else value
    evaluator: Evaluator = Builder(fill(found, given, "", registry, entry.name), registry).build("")
    return evaluator


def _as_list(value: Any) -> Any:
    """Read ``10,20`` and ``10`` as lists."""
    if isinstance(value, str):
        return [int(part) if part.strip().isdigit() else part.strip() for part in value.split(",")]
    return [value] if isinstance(value, int | float) else value


def _models(spec: str) -> list[str]:
    from sslkit.backbones.raw_pixels import RawPixels

    return [f"{spec}:{variant}" for variant in RawPixels.VARIANTS] if spec == "raw-pixels" else [spec]


def _measure(evaluator: "Evaluator", spec: str, options: dict[str, str]) -> list[dict[str, Any]]:
    from dataclasses import replace

    from sslkit.backbones.loading import load_model
    from sslkit.device import choose_device
    from sslkit.evaluation.evaluate import evaluate
    from sslkit.evaluation.images import evaluation_data
    from sslkit.training.loader import default_workers

    device = choose_device(options.get("--device", "auto"), "--device")
    model = load_model(spec, options.get("--network", "teacher"))
    preprocessing = model.preprocessing
    if "--size" in options:
        size = _number(options, "--size", 0)
        preprocessing = replace(preprocessing, size=size, resize=round(size * 8 / 7))
    preprocessing = replace(preprocessing, resize=_number(options, "--resize", preprocessing.resize))
    train, test = _images(spec, options, preprocessing.channels)
    workers = _number(options, "--workers", default_workers(test), least=0)
    limit = _number(options, "--limit", 0) if "--limit" in options else None
    batch_size = _number(options, "--batch-size", 256)
    data = evaluation_data(train, test, preprocessing, batch_size, device, workers, limit)
    rows = evaluate(model.backbone.to(device), [evaluator], data, network=model.network)
    if not rows:
        raise SSLKitError(f"{evaluator.command} needs labels: {test.name} or {train.name} has none")
    return rows


def _images(spec: str, options: dict[str, str], channels: int) -> "tuple[ImageSource, ImageSource]":
    if "--data" in options:
        from sslkit.data.hugging_face import HuggingFaceImages

        path = options["--data"]
        parts = (options.get("--train-split", "train"), options.get("--test-split", "test"))
        train, test = (HuggingFaceImages(path, split=split, channels=channels) for split in parts)
        return train, test
    here = Path(spec).expanduser()
    recipe = next((file for place in (here, here.parent) if (file := place / "recipe.yaml").is_file()), None)
    if recipe is None:
        raise SSLKitError("--data is missing: the images to measure on (only a run brings its own)")
    from sslkit.recipe.loading import load_data

    data = load_data(recipe)
    if data.test is None:
        raise SSLKitError(f"{recipe} has no data.test: say --data PATH")
    return data.train, data.test


def _number(options: dict[str, str], name: str, default: int, least: int = 1) -> int:
    text = options.get(name, str(default))
    if not text.isdigit() or int(text) < least:
        raise SSLKitError(f"{name} must be a whole number of at least {least}, not {text!r}")
    return int(text)


def _show(rows: Sequence[dict[str, Any]]) -> None:
    screen = Screen()
    screen.heading(rows[0]["evaluator"], f"{rows[0]['protocol']} · {rows[0]['dataset']}")
    names = list(rows[0]["metrics"])
    header = ["", *(row["network"] for row in rows)]
    lines = [[name, *(f"{row['metrics'][name]:.2f}" for row in rows)] for name in names]
    screen.columns([header, *lines], styles=["cyan"] + [""] * len(rows))


def _help(words: Sequence[str]) -> int:
    screen = Screen()
    if words:
        from sslkit.cli.describe import describe
        from sslkit.registry import kind_of

        describe(screen, kind_of("evaluators"), _find(words[0]).name, active().registry)
        screen.gap()
    known = ((command_of(entry), entry.summary) for entry in active().registry.entries("evaluators"))
    screen.help(
        "sslkit evaluate EVALUATOR MODEL",
        "what a frozen backbone can do",
        ("Evaluators", "sslkit evaluate EVALUATOR --help says what one takes, as --NAME VALUE", known),
        ("Models", "", MODELS.items()),
        ("Options", "", OPTIONS.items()),
        examples=EXAMPLES,
    )
    return 0
