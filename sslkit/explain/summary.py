"""Summary of a recipe: dimensions, parameters, views, length of the run, memory and data rate."""

from collections.abc import Iterator, Sequence

import torch
from rich.text import Text
from torch import nn

from sslkit.device import choose_device, choose_precision
from sslkit.errors import NotSupported, RecipeError
from sslkit.explain.memory import estimate_memory
from sslkit.recipe.build import Builder
from sslkit.recipe.model import build_model
from sslkit.recipe.sections import Method
from sslkit.recipe.validation import chosen_views
from sslkit.types import Sample, matching_pairs

Row = tuple[str, str | Text]

RATE = 1000
"""Images per second for which the data rate is reported, a round number and no prediction."""


def network_rows(builder: Builder) -> Iterator[Row]:
    """Yield rows with the dimensions, the parameters of student and teacher, and the views with their pairs."""
    method, maker = builder.build("method"), builder.build("views")
    channels, size, head = builder.build("data.channels"), maker.sizes[0], method.head
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


def time_rows(builder: Builder, num_images: int | None, counted: str, processes: int) -> Iterator[Row]:
    """Yield rows with the batch, and with the length of the run in steps and epochs.

    Args:
        builder: builder of the recipe.
        num_images: number of training images, None where it is unknown.
        counted: the option or key that the number is from, or the reason why it is unknown.
        processes: processes that share each batch.
    """
    plan, micro_batches = builder.build("optimization"), builder.build("runtime.accumulation")
    share = f", {processes} processes of {plan.batch_size // processes:,}" if processes > 1 else ""
    cut = f", each in {micro_batches} micro-batches" if micro_batches > 1 else ""
    yield "Batch", f"{plan.batch_size:,} images a step{share}{cut}"
    if num_images is None:
        yield "Time", Text(f"the number of images is unknown; add --num-images N ({counted})", "yellow")
    else:
        clock = plan.clock(num_images)
        epochs = f"{clock.total_steps / clock.steps_per_epoch:g} epochs of {clock.steps_per_epoch:,} steps"
        yield "Time", f"{clock.total_steps:,} steps = {epochs}; {num_images:,} images ({counted})"


def cost_rows(builder: Builder, processes: int) -> Iterator[Row]:
    """Yield rows with the memory of a step, and with the bytes that loader workers pass to the training process.

    Args:
        builder: builder of the recipe.
        processes: processes that share each batch.
    """
    maker, plan = builder.build("views"), builder.build("optimization")
    images = plan.batch_size // processes
    yield "Memory", _memory(builder, images)
    # What `prepare` returns has one size for images of any size, so one image shows it.
    black = torch.zeros(maker.channels, max(maker.sizes), max(maker.sizes), dtype=torch.uint8)
    each = sum(tensor.nbytes for tensor in maker.prepare(Sample(black, 0), 0, 0))
    step, second = _bytes(each * plan.batch_size), _bytes(each * RATE)
    yield (
        "Data",
        f"{plan.batch_size:,} images decoded a step, {_bytes(each)} each from the loader if they have 8 bits: {step} a "
        f"step, {second} a second at {RATE:,} images/s",
    )


def _memory(builder: Builder, images: int) -> str:
    precision = _precision(builder)
    recompute = builder.build("runtime.checkpoint_activations")
    model = build_model(builder.build("method"), None, torch.device("cpu"), recompute)
    plan, accumulation = builder.build("optimization"), builder.build("runtime.accumulation")
    try:
        memory = estimate_memory(model, builder.build("views"), plan.optimizer, images, accumulation, precision)
    except NotSupported as error:
        return f"unknown: {error}"
    return (
        f"{_bytes(memory.peak)} of tensors at the peak of a step of {images:,} images in {precision} (networks "
        f"{_bytes(memory.networks)}, optimizer {_bytes(memory.optimizer)}); kernels and allocator take more"
    )


def _precision(builder: Builder) -> str:
    name: str = builder.build("precision")
    try:
        device = choose_device(builder.build("runtime.device"))
    except RecipeError:
        # A recipe for GPUs is often explained on a machine without one.
        device = torch.device("cpu")
    return choose_precision(name, device) if name == "auto" else name


def _bytes(count: int) -> str:
    unit = next((unit for unit in (9, 6, 3) if count >= 10**unit), 0)
    return f"{count / 10**unit:.3g} { {9: 'GB', 6: 'MB', 3: 'kB', 0: 'B'}[unit] }"
