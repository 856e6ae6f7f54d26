"""``sslkit evaluate``: evaluate a frozen backbone."""

import ast
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

from sslkit.cli.parser import CommandParser, path, whole
from sslkit.cli.results import NETWORKS
from sslkit.cli.screen import Screen
from sslkit.errors import SSLKitError, UnknownName
from sslkit.plugins import active
from sslkit.registry import Entry, source_of

if TYPE_CHECKING:
    from sslkit.contracts import Evaluator, ImageSource

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


def add_arguments(parser: CommandParser) -> None:
    """Declare what the command takes; an evaluator's own arguments are those of its class."""
    parser.describe("an EVALUATOR and a MODEL", "what a frozen backbone can do", EXAMPLES, overrides=True)
    parser.add_argument("evaluator", metavar="EVALUATOR", help="what to measure")
    parser.add_argument("model", metavar="MODEL", help="what is measured")
    known = "sslkit evaluate EVALUATOR --help explains one; its arguments are options too"
    parser.add_table("Evaluators", known, _evaluators)
    parser.add_table("Models", "", lambda: MODELS.items())
    options = parser.add_options()
    add = options.add_argument
    add("--data", metavar="PATH", help="images, as HuggingFaceImages of a recipe takes them; a run's own without it")
    add("--label-column", metavar="NAME", help="column of labels in a table of --data; found by its name without it")
    left_out = "leave out files and folders of --data by a pattern of a shell; may be given several times"
    add("--exclude", metavar="PATTERN", action="append", default=[], help=left_out)
    add("--train-split", metavar="NAME", default="train", help="split to learn from (train)")
    add("--test-split", metavar="NAME", default="test", help="split to measure on (test)")
    add("--network", metavar="NAME", choices=NETWORKS, default="teacher", help="teacher or student of a run (teacher)")
    add("--size", metavar="PX", type=whole(1), help="side that the backbone sees; the model's own without it")
    add("--resize", metavar="PX", type=whole(1), help="shorter side before the central crop; 8/7 of --size if given")
    add("--batch-size", metavar="N", type=whole(1), default=256, help="images at once (256)")
    add("--limit", metavar="N", type=whole(1), help="use N images of each split, evenly spread")
    add("--workers", metavar="N", type=whole(0), help="processes that read images; chosen by the machine without it")
    add("--device", metavar="NAME", default="auto", help="auto, cpu, cuda, mps (auto)")
    add("--output", metavar="FILE", type=path, help="a results.json to which the rows are added")


def run(args: Namespace) -> int:
    """Evaluate a model."""
    evaluator = _make_evaluator(args.evaluator, args.overrides, args.declared)
    if args.output is not None:
        _check_output(args.output)
    rows = [row for i, model in enumerate(_models(args.model)) for row in _measure(evaluator, model, args, i == 0)]
    _show(rows)
    if args.output is not None:
        from sslkit.run_folder.results import append_results

        append_results(args.output, rows)
    return 0


def show_help(parser: CommandParser, words: Sequence[str]) -> None:
    """Print the command's help, after that of an evaluator that was named."""
    if words:
        from sslkit.cli.describe import describe
        from sslkit.registry import kind_of

        screen = Screen()
        describe(screen, kind_of("evaluators"), _find(words[0]).name, active().registry)
        screen.gap()
    parser.print_help()


def evaluator_names() -> list[str]:
    """Return the names of the evaluators on the command line."""
    return [name for name, _ in _evaluators()]


def _evaluators() -> Iterator[tuple[str, str]]:
    for entry in active().registry.entries("evaluators"):
        yield command_of(entry), entry.summary


def _check_output(path: Path) -> None:
    """Refuse, before evaluating, an output file that could not be written afterwards."""
    from sslkit.errors import DataError
    from sslkit.run_folder.results import read_results

    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise SSLKitError(f"--output {path}: {path.parent} is not a folder that can be written to")
    try:
        read_results(path)
    except DataError as error:
        raise SSLKitError(f"--output {path} is not a results.json, a list of rows, and stays as it is") from error


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


def _make_evaluator(name: str, words: Sequence[str], declared: Sequence[str]) -> "Evaluator":
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
            raise UnknownName("option", option, [*declared, *(f"--{key}" for key in known)])
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


def _measure(evaluator: "Evaluator", model: str, args: Namespace, say: bool) -> list[dict[str, Any]]:
    """Return the rows of one model.

    Args:
        evaluator: what to measure.
        model: as on the command line.
        args: of the command.
        say: whether to print which images were found.
    """
    from dataclasses import replace

    from sslkit.backbones.loading import load_model
    from sslkit.backbones.trial import check_size
    from sslkit.device import choose_device
    from sslkit.evaluation.evaluate import evaluate
    from sslkit.evaluation.images import evaluation_data
    from sslkit.training.loader import default_workers

    device = choose_device(args.device, "--device")
    loaded = load_model(model, args.network)
    preprocessing = loaded.preprocessing
    if args.size is not None:
        preprocessing = replace(preprocessing, size=args.size, resize=round(args.size * 8 / 7))
    if args.resize is not None:
        preprocessing = replace(preprocessing, resize=args.resize)
    # Before the images are indexed, which takes long for a large data set.
    check_size("--size", loaded.backbone, preprocessing.size, preprocessing.channels)
    train, test = _images(model, args, preprocessing.channels)
    for found in filter(None, [source.summary() for source in (train, test) if say]):
        print(found, file=sys.stderr)
    workers = default_workers(test) if args.workers is None else args.workers
    data = evaluation_data(train, test, preprocessing, args.batch_size, device, workers, args.limit)
    rows = evaluate(loaded.backbone.to(device), [evaluator], data, network=loaded.network)
    if not rows:
        without = [source.summary() or source.name for source in (train, test) if source.labels is None]
        raise SSLKitError(f"{evaluator.command} needs labels; without them: {'. '.join(without or [test.name])}")
    return rows


def _images(model: str, args: Namespace, channels: int) -> "tuple[ImageSource, ImageSource]":
    if args.data is not None:
        from sslkit.data.classes import check_classes
        from sslkit.data.hugging_face import HuggingFaceImages

        splits = (args.train_split, args.test_split)
        arguments = {"label_column": args.label_column, "channels": channels, "exclude": args.exclude}
        train, test = (HuggingFaceImages(args.data, split, **arguments) for split in splits)
        check_classes(train, test)
        return train, test
    here = Path(model).expanduser()
    recipe = next((file for place in (here, here.parent) if (file := place / "recipe.yaml").is_file()), None)
    if recipe is None:
        raise SSLKitError("--data is missing: the images to measure on (only a run has its own)")
    from sslkit.recipe.loading import load_data

    data = load_data(recipe)
    if data.test is None:
        raise SSLKitError(f"{recipe} has no data.test: add --data PATH")
    return data.train, data.test


def _show(rows: Sequence[dict[str, Any]]) -> None:
    screen = Screen()
    screen.heading(rows[0]["evaluator"], f"{rows[0]['protocol']} · {rows[0]['dataset']}")
    names = list(rows[0]["metrics"])
    header = ["", *(row["network"] for row in rows)]
    lines = [[name, *(f"{row['metrics'][name]:.2f}" for row in rows)] for name in names]
    screen.columns([header, *lines], styles=["cyan"] + [""] * len(rows))
