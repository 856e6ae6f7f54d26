"""What a recipe will do, told without running it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text
from torch import nn

from sslkit.cli.screen import Screen
from sslkit.clock import Clock, Duration
from sslkit.errors import SSLKitError
from sslkit.recipe import Recipe
from sslkit.recipe.build import Builder, check_method, chosen_views
from sslkit.recipe.layers import COMMAND_LINE
from sslkit.recipe.typed import Node
from sslkit.schedules import value_at
from sslkit.sections import Method, Optimization
from sslkit.types import matching_pairs

SLOTS = [f"method.{slot}" for slot in ("backbone", "head", "predictor", "teacher", "collapse", "loss")]
SLOTS += ["views", "data.train", "data.test", "optimization.optimizer"]


def explain(recipe: Recipe, num_images: int | None = None) -> None:
    """Print a recipe's parts and its course; images are neither read nor needed where their number is known.

    Args:
        recipe: what to explain.
        num_images: count with this many training images.

    Raises:
        SSLKitError: parts that do not fit together.
    """
    screen, builder = Screen(), recipe.builder()
    method, optimization = builder.part("method"), builder.part("optimization")
    check_method(method, builder.part("views"), recipe.root)
    num_images, counted = (num_images, "--num-images") if num_images else _num_images(builder)
    screen.heading(recipe.name, _file(recipe))
    screen.columns(_slots(recipe))
    screen.gap()
    screen.columns([*_facts(method, builder), ("Time", _time(optimization, num_images, counted))], styles=("bold", ""))
    if num_images:
        _course(screen, recipe, method, optimization, optimization.clock(num_images))


def _file(recipe: Recipe) -> str:
    return next(layer.origin for layer in reversed(recipe.layers) if layer.origin != COMMAND_LINE)


def _slots(recipe: Recipe) -> Iterator[tuple[str, Text, str]]:
    """Yield the filled slots, and what changes them on top of the lowest recipe."""
    for key in SLOTS:
        node = recipe.root.at(key)
        changes = [origin for origin in recipe.origins(key) if origin != recipe.layers[0].origin]
        if isinstance(node, Node):
            yield key, _call(node), " + ".join(Path(origin).stem for origin in changes)


def _call(value: Any) -> Text:
    """Return a component as it would be called, with the arguments that were given in YAML's words."""
    if isinstance(value, Mapping):
        items = (Text.assemble(f"{name}: ", _call(item)) for name, item in value.items())
        return Text.assemble("{", Text(", ").join(items), "}")
    if isinstance(value, list | tuple):
        return Text.assemble("[", Text(", ").join(_call(item) for item in value), "]")
    if value is None or isinstance(value, bool):
        return Text({None: "null", True: "true", False: "false"}[value])
    if not isinstance(value, Node):
        return Text(f"{value:g}" if isinstance(value, float) else str(value))
    arguments = (Text.assemble(f"{name}=", _call(given)) for name, given in value.given.items())
    return Text.assemble((value.name, "bold"), "(", Text(", ").join(arguments), ")")


def _facts(method: Method, builder: Builder) -> Iterator[tuple[str, str | Text]]:
    maker, head = builder.part("views"), method.head
    channels, size = builder.part("data.channels"), maker.sizes[0]
    steps = [
        f"image {channels} x {size} x {size}",
        f"features {method.backbone.embed_dim}",
        f"embedding {head.embed_dim}",
    ]
    yield "Dimensions", " -> ".join([*steps, *([f"prototypes {head.num_prototypes:,}"] if head.num_prototypes else [])])
    yield "Parameters", _parameters(method)
    student, teacher = chosen_views(method, maker)
    globals_, locals_ = maker.sizes[: maker.num_globals], maker.sizes[maker.num_globals :]
    made = " + ".join(
        f"{len(sizes)} {word} of {sizes[0]} px" for word, sizes in (("global", globals_), ("local", locals_)) if sizes
    )
    pairs = len(matching_pairs(teacher, student))
    yield "Views", f"{made}; student sees {len(student)}, teacher {len(teacher)}: {pairs} pairs an image"


def _parameters(method: Method) -> str:
    networks: list[nn.Module] = [method.backbone, method.head]
    shared = _count(networks)
    student = shared + _count([method.predictor] if method.predictor else [])
    teacher = "the student itself" if method.teacher.shares_weights else _millions(shared)
    return f"student {_millions(student)} trainable (backbone {_millions(_count(networks[:1]))}), teacher {teacher}"


def _count(modules: Sequence[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count:,}"


def _num_images(builder: Builder) -> tuple[int | None, str]:
    """Return how many images an epoch has and who says so, or None and why nobody can."""
    if (number := builder.part("data.num_images")) is not None:
        return number, "data.num_images"
    try:
        return len(builder.part("data.train")), "data.train"
    except SSLKitError as error:
        return None, str(error)


def _time(optimization: Optimization, num_images: int | None, counted: str) -> Text:
    batch = f"{optimization.batch_size:,} images a step"
    if num_images is None:
        unknown = Text(f"the number of images is unknown, --num-images N tells it ({counted})", "yellow")
        return Text.assemble(f"{batch}; ", unknown)
    clock = optimization.clock(num_images)
    epochs = f"{clock.total_steps / clock.steps_per_epoch:g} epochs of {clock.steps_per_epoch:,} steps"
    return Text(f"{clock.total_steps:,} steps = {epochs}; {batch}, {num_images:,} images ({counted})")


def _course(screen: Screen, recipe: Recipe, method: Method, optimization: Optimization, clock: Clock) -> None:
    screen.gap()
    moments = [clock.at(step) for step in (0, clock.total_steps // 2, clock.total_steps - 1)]
    courses = [_numbers(method, optimization, moment) for moment in moments]
    rows = [[name, *(f"{course[name]:.4g}" for course in courses)] for name in courses[0]]
    if "teacher_momentum" in courses[0]:
        lives = (_half_life(course["teacher_momentum"], clock) for course in courses)
        rows.append(["teacher half-life", *lives])
    header = Text("over the run", "bold"), *(Text(word, "dim") for word in ("first step", "middle", "last step"))
    screen.columns([header, *rows], styles=("cyan", "", "", ""))
    durations = list(_durations("", recipe.resolved))
    if durations:
        screen.gap()
        header = Text("durations", "bold"), *(Text(word, "dim") for word in ("steps", "epochs"))
        screen.columns(
            [header, *(_span(key, span, clock) for key, span in durations)], styles=("cyan", "", "", "yellow")
        )


def _numbers(method: Method, optimization: Optimization, clock: Clock) -> dict[str, float]:
    numbers = {"learning_rate": optimization.learning_rate(clock)}
    numbers["weight_decay"] = value_at(optimization.weight_decay, clock)
    for part in (method.teacher, method.collapse):
        metrics = part.metrics(clock) if part else {}
        numbers |= {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return numbers


def _half_life(momentum: float, clock: Clock) -> str:
    """Return in how many steps a teacher forgets half of what it was."""
    steps = math.inf if momentum >= 1 else math.log(0.5) / math.log(momentum) if momentum > 0 else 0.0
    return f"{steps:,.1f} steps" if steps <= clock.total_steps else "longer than the run"


def _span(key: str, span: Duration, clock: Clock) -> list[str]:
    note = "longer than the run" if span.steps(clock) > clock.total_steps else ""
    return [key, f"{span.steps(clock):,}", f"{span.epochs(clock):.4g}", note]


def _durations(key: str, value: Any) -> Iterator[tuple[str, Duration]]:
    """Yield every duration of a resolved recipe that is not nothing, with its key; class names are left out."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _durations(key if name[:1].isupper() else f"{key}.{name}".strip("."), item)
    elif isinstance(value, str) and value.endswith((" epochs", " steps", " epoch", " step")):
        span = Duration.parse(value)
        if span.amount:
            yield key, span
