"""``sslkit evaluate``: evaluate a frozen backbone."""

import ast
import os
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

from rich.console import Console

from sslkit.cli.parser import CommandParser, path, whole
from sslkit.cli.results import BACKBONE_HELP, NETWORK_HELP, NETWORKS
from sslkit.cli.screen import Screen
from sslkit.errors import SSLKitError, UnknownName
from sslkit.paths import local_path
from sslkit.plugins import active
from sslkit.progress import loading, say, working
from sslkit.registry import Entry, source_of

if TYPE_CHECKING:
    import torch

    from sslkit.backbones.loading import LoadedModel
    from sslkit.contracts import Evaluator, ImageSource
    from sslkit.evaluation.baselines import EvaluationCost
    from sslkit.types import EvaluationData

Row = dict[str, Any]

MODELS = {
    "FOLDER": "a run, or an exported folder",
    "FILE": "weights, .pth or .safetensors: DINO, MoCo, SwAV, VICReg, timm, torchvision",
    "timm:NAME": "a pretrained timm model",
    "hf-hub:OWNER/NAME": "a timm model of the Hugging Face Hub",
    "untrained:NAME": "a timm model as it is drawn",
    "raw-pixels": "the pixels themselves: plain, centered and gray-centered, or raw-pixels:VARIANT",
}

EXAMPLES = """\
sslkit evaluate knn RUN_FOLDER --network student
sslkit evaluate knn timm:vit_small_patch16_224.dino --data ~/birds --k 10,20
sslkit evaluate knn dino_deitsmall16_pretrain.pth --data ~/birds
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
    add("--network", metavar="NAME", choices=NETWORKS, help=NETWORK_HELP)
    add("--backbone", metavar="NAME", help=BACKBONE_HELP)
    add("--size", metavar="PX", type=whole(1), help="side that the backbone sees; the model's own without it")
    add("--resize", metavar="PX", type=whole(1), help="shorter side before the central crop; 8/7 of --size if given")
    add("--batch-size", metavar="N", type=whole(1), default=256, help="images at once (256)")
    add("--limit", metavar="N", type=whole(1), help="use N images of each split, drawn at random, always the same ones")
    add("--workers", metavar="N", type=whole(0), help="processes that read images; chosen by the machine without it")
    add("--device", metavar="NAME", default="auto", help="auto, cpu, cuda, mps (auto)")
    add("--baselines", metavar="NAMES", help="raw-pixels,untrained or none; those that take seconds without it")
    add("--output", metavar="FILE", type=path, help="a results.json to which the rows are added")


def run(args: Namespace) -> int:
    """Evaluate a model, and what it is compared with."""
    evaluator = _make_evaluator(args.evaluator, args.overrides, args.declared)
    if args.output is not None:
        _check_output(args.output)
    from sslkit.cli.results import show_results

    known, rows, num_classes = _measure(evaluator, args)
    show_results([*known, *rows], num_classes, Console(highlight=False))
    if args.output is not None:
        from sslkit.run_folder.results import append_results

        append_results(args.output, rows)
    return 0


def show_help(parser: CommandParser, words: Sequence[str]) -> None:
    """Print the command's help, after that of an evaluator that was named."""
    if words:
        with loading():
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
    with loading():
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


def _measure(evaluator: "Evaluator", args: Namespace) -> tuple[list[Row], list[Row], int | None]:
    """Return baselines that a run has measured already, new rows, and the number of classes."""
    with working(f"reading {args.model}", plain=False):
        from sslkit.backbones.loading import load_model
        from sslkit.device import choose_device
        from sslkit.evaluation.baselines import baselines_of
        from sslkit.evaluation.evaluate import evaluate

        device = choose_device(args.device, "--device")
        models = [load_model(model, args.network, architecture=args.backbone) for model in _variants(args.model)]
    compared = baselines_of(models[0])
    names = None if args.baselines is None else _baseline_names(args.baselines, args.model, compared)
    data, cost, without = _data(args, models[0], device)

    def rows_of(model: "LoadedModel") -> list[Row]:
        return evaluate(model.backbone.to(device), [evaluator], data, network=model.network)

    rows = [row for model in models for row in rows_of(model)]
    if not rows:
        raise SSLKitError(f"{evaluator.command} needs labels; without them: {'. '.join(without or [data.test.name])}")
    known = _recorded(rows[0], args)
    if names is None:
        names = [] if known else _cheap(compared, cost)
    baselines = [row for name in names for model in compared[name] for row in rows_of(model)]
    return known, [*baselines, *rows], data.test.num_classes


def _variants(spec: str) -> list[str]:
    from sslkit.backbones.raw_pixels import RawPixels

    return [f"{spec}:{variant}" for variant in RawPixels.VARIANTS] if spec == "raw-pixels" else [spec]


def _data(
    args: Namespace, loaded: "LoadedModel", device: "torch.device"
) -> "tuple[EvaluationData, EvaluationCost, list[str]]":
    """Return the images as the options ask for them, what an evaluation costs, and summaries of unlabelled ones."""
    from dataclasses import replace

    from sslkit.backbones.trial import check_size
    from sslkit.evaluation.baselines import EvaluationCost
    from sslkit.evaluation.images import evaluation_data
    from sslkit.training.loader import default_workers

    preprocessing = loaded.preprocessing
    if args.size is not None:
        preprocessing = replace(preprocessing, size=args.size, resize=round(args.size * 8 / 7))
    if args.resize is not None:
        preprocessing = replace(preprocessing, resize=args.resize)
    # Before the images are indexed, which takes long for a large data set.
    check_size("--size", loaded.backbone, preprocessing.size, preprocessing.channels)
    train, test = _images(args.model, args, preprocessing.channels)
    for found in filter(None, [source.summary() for source in (train, test)]):
        say(found)
    without = [source.summary() or source.name for source in (train, test) if source.labels is None]
    workers = default_workers(test) if args.workers is None else args.workers
    data = evaluation_data(train, test, preprocessing, args.batch_size, device, workers, args.limit)
    return data, EvaluationCost(data.train.num_images, data.test.num_images, preprocessing, device, workers), without


def _recorded(row: Row, args: Namespace) -> list[Row]:
    """Return the baselines that a run has measured in the same way: its own images, unless others are named."""
    from sslkit.evaluation.baselines import UNTRAINED, raw_pixels
    from sslkit.run_folder.results import read_results

    changed = any(getattr(args, name) is not None for name in ("data", "size", "resize", "limit", "baselines"))
    here = local_path(args.model)
    if changed or not here.is_dir():
        return []
    folder = here if (here / "results.json").is_file() else here.parent
    names = {UNTRAINED, *raw_pixels(3)}
    same = ("evaluator", "protocol", "dataset")
    return [
        dict(found)
        for found in read_results(folder / "results.json")
        if found.get("network") in names
        and found["step"] == 0
        and all(found.get(name) == row[name] for name in same)
        and {*row["metrics"]} <= {*found["metrics"]}
    ]


def _cheap(compared: "Mapping[str, Sequence[LoadedModel]]", cost: "EvaluationCost") -> list[str]:
    """Return the baselines that take seconds; a line says which ones are left out."""
    from sslkit.evaluation.baselines import cheap, left_out

    costs = cost.baselines({name: models[0].backbone for name, models in compared.items()})
    names = cheap(costs)
    if note := left_out(costs, names, f"--baselines {','.join(compared)}"):
        say(note)
    return names


def _baseline_names(text: str, model: str, known: Iterable[str]) -> list[str]:
    """Read ``raw-pixels,untrained``, the list of a recipe too, or ``none``."""
    names = [name.strip() for name in text.strip("[] ").split(",") if name.strip() not in ("", "none")]
    for name in names:
        if name not in known:
            raise UnknownName("baseline", name, [*known, "none"], f"--baselines, of {model}")
    return names


def _images(model: str, args: Namespace, channels: int) -> "tuple[ImageSource, ImageSource]":
    if args.data is not None:
        from sslkit.data.classes import check_classes
        from sslkit.data.hugging_face import HuggingFaceImages

        splits = (args.train_split, args.test_split)
        arguments = {"label_column": args.label_column, "channels": channels, "exclude": args.exclude}
        train, test = (HuggingFaceImages(args.data, split, **arguments) for split in splits)
        check_classes(train, test)
        return train, test
    here = local_path(model)
    recipe = next((file for place in (here, here.parent) if (file := place / "recipe.yaml").is_file()), None)
    if recipe is None:
        raise SSLKitError("--data is missing: the images to measure on (only a run has its own)")
    from sslkit.recipe.loading import load_data

    data = load_data(recipe)
    if data.test is None:
        raise SSLKitError(f"{recipe} has no data.test: add --data PATH")
    return data.train, data.test
