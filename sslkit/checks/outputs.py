"""Checks of what components return: kinds and shapes alone, which costs no wait for the device."""

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from sslkit.checks.classes import full_name
from sslkit.clock import Clock
from sslkit.contracts import Backbone, CollapseOperator, Evaluator, ImageSource, Loss, Optimizer, ViewMaker
from sslkit.errors import ComponentError, NotFinite
from sslkit.recommendation import Recommendation
from sslkit.schedules import Schedule
from sslkit.types import Features, Projection, Sample, Targets, Views


def check_features(backbone: Backbone, features: object, num_images: int, width: int | None = None) -> Features:
    """Return the features of a backbone if they are (N, F).

    Args:
        backbone: the network.
        features: what it returned.
        num_images: N.
        width: F; None for any.

    Raises:
        ComponentError: naming the backbone and what it returns.
    """
    if not isinstance(features, Features):
        raise _returns(backbone, "forward", features, "sslkit.Features: return Features(cls=...), cls of shape (N, F)")
    if not isinstance(features.cls, Tensor):
        raise _returns(backbone, "forward", features.cls, "a tensor (N, F), as cls of Features")
    shape = tuple(features.cls.shape)
    if shape != (num_images, shape[-1] if width is None else width):
        wanted = f"({num_images}, {'F' if width is None else width}), F being embed_dim"
        raise ComponentError(
            f"{full_name(type(backbone))}: forward returns features {shape}, not (N, F), here {wanted}"
        )
    return features


def check_rows(owner: nn.Module, part: str, rows: object, num_rows: int, width: int | None, size: str) -> None:
    """Refuse what a network of a head, or a predictor, returns if it is not one row an input.

    Args:
        owner: the component.
        part: what was called: ``projector``.
        rows: what it returned.
        num_rows: of its input.
        width: of a row; None for any.
        size: the attribute that says the width.

    Raises:
        ComponentError: naming both shapes.
    """
    if not isinstance(rows, Tensor):
        raise _returns(owner, part, rows, "a tensor (N, D)")
    if rows.shape != (num_rows, rows.shape[-1] if width is None else width):
        raise ComponentError(
            f"{full_name(type(owner))}: {part} returns {tuple(rows.shape)} for {num_rows} rows, but {size} is {width}"
        )


def check_targets(operator: CollapseOperator, targets: object, teacher: Projection) -> Targets:
    """Return the targets of a collapse operator if they fit the teacher's outputs.

    Raises:
        ComponentError: naming the operator and what it returns.
    """
    if not isinstance(targets, Targets):
        wanted = "sslkit.Targets: return Targets(values, self.yields, teacher.view_ids)"
        raise _returns(operator, "forward", targets, wanted)
    if not isinstance(targets.values, Tensor) or not targets.values.is_floating_point():
        dtype = str(targets.values.dtype) if isinstance(targets.values, Tensor) else ""
        raise _returns(operator, "forward", targets.values, "a floating tensor, as values of Targets", dtype)
    name = f"{full_name(type(operator))}: forward returns targets"
    if targets.kind != operator.yields:
        raise ComponentError(f"{name} of kind {targets.kind!r}, but yields is {operator.yields!r}; give both the same")
    scores = teacher.embedding if targets.kind == "embedding" else teacher.logits
    expected = (len(targets.view_ids), *(teacher.embedding if scores is None else scores).shape[1:])
    if targets.values.shape != expected or not {*targets.view_ids} <= {*teacher.view_ids}:
        raise ComponentError(
            f"{name} {tuple(targets.values.shape)} of views {tuple(targets.view_ids)}; one entry a teacher view, an "
            f"image and a {'dimension' if targets.kind == 'embedding' else 'prototype'} is {expected}"
        )
    if operator.gives_negatives and targets.negatives is None:
        raise ComponentError(f"{name} without negatives, but gives_negatives is True")
    return targets


def check_loss(loss: Loss, value: object) -> None:
    """Refuse what a loss returns if it is not one number with a gradient.

    Raises:
        ComponentError: naming the loss and what it returns.
    """
    if not isinstance(value, Tensor):
        raise _returns(loss, "forward", value, "a tensor of one number, with its gradient")
    name = f"{full_name(type(loss))}: forward returns"
    if value.numel() != 1:
        raise ComponentError(f"{name} {tuple(value.shape)} numbers, not one; end with .mean()")
    if torch.is_grad_enabled() and not value.requires_grad:
        raise ComponentError(
            f"{name} a number without gradient, so nothing would learn: compute it of the student's outputs, without "
            ".item(), .detach(), argmax or rounding"
        )


def check_chance(loss: Loss, value: object) -> float | Tensor | None:
    """Return what ``chance`` of a loss returned.

    Raises:
        ComponentError: it is no number and not None.
    """
    if value is None or isinstance(value, Real):
        return None if value is None else float(value)
    if isinstance(value, Tensor) and value.numel() == 1:
        return value
    raise _returns(loss, "chance", value, "a number, or None where it is not known")


def check_log_probabilities(loss: Loss, value: object) -> Tensor | None:
    """Return what ``log_probabilities`` of a loss returned.

    Raises:
        ComponentError: it is no tensor and not None.
    """
    if value is None or isinstance(value, Tensor):
        return value
    raise _returns(loss, "log_probabilities", value, "a tensor (S, B, K), or None where there are none")


def check_optimizer(owner: Optimizer, built: object, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
    """Return the torch optimizer that was built of parameter groups if it steps all of them.

    Raises:
        ComponentError: naming the optimizer, and what it returns or leaves out.
    """
    if not isinstance(built, torch.optim.Optimizer):
        raise _returns(owner, "build", built, "a torch.optim.Optimizer of the groups")
    name = full_name(type(owner))
    taken = {parameter for group in built.param_groups for parameter in group["params"]}
    left_out = sum(parameter not in taken for group in groups for parameter in group["params"])
    if left_out:
        raise ComponentError(f"{name}: build leaves out {left_out} parameters of the groups, which would not train")
    if any(not {"decay", "lr_scale"} <= group.keys() for group in built.param_groups):
        raise ComponentError(
            f"{name}: build drops the keys decay and lr_scale of the groups, by which each step sets weight decay and "
            "learning rate; give the groups to torch as they are, as dictionaries"
        )
    closure = inspect.signature(type(built).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ComponentError(f"{name}: {type(built).__name__} needs a closure in each step, which sslkit does not give")
    return built


def check_schedule(key: str, schedule: Schedule, clocks: Iterable[Clock], least: float = -math.inf) -> None:
    """Refuse a schedule that is not a finite number at one of these moments.

    Args:
        key: where it stands, for the message.
        schedule: a pure function of the clock.
        clocks: moments of the run.
        least: the lowest number allowed.

    Raises:
        ComponentError: naming the schedule, the step and what it returns there.
    """
    for clock in clocks:
        value = schedule(clock)
        number = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
        if not isinstance(number, Real) or not math.isfinite(number) or number < least:
            shown = repr(value) if value is None or isinstance(value, str | Real) else f"a {type(value).__name__}"
            bound = "" if least == -math.inf else f" of at least {least:g}"
            raise ComponentError(
                f"{key}: {full_name(type(schedule))} returns {shown} at step {clock.step}, not a finite number{bound}"
            )


def check_recommendations(part: object, found: object) -> Iterable[Recommendation]:
    """Yield what a component recommends.

    Raises:
        ComponentError: naming the component and what it returns.
    """
    wanted = "recommendations: yield sslkit.Recommendation(reason)"
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise _returns(part, "recommend", found, wanted)
    for each in found:
        if not isinstance(each, Recommendation):
            raise _returns(part, "recommend", each, wanted)
        yield each


def check_sample(source: ImageSource, index: int, sample: object) -> Sample:
    """Return an image of a source if it is a `Sample`.

    Raises:
        ComponentError: naming the source and what it returns.
    """
    if not isinstance(sample, Sample):
        raise _returns(source, "read", sample, f"sslkit.Sample: return Sample(image, int(self.keys[{index}]))")
    if not isinstance(sample.image, Tensor) or sample.image.ndim != 3:
        shown = tuple(sample.image.shape) if isinstance(sample.image, Tensor) else type(sample.image).__name__
        raise ComponentError(f"{full_name(type(source))}: read gives the image {shown}; it is a tensor (C, H, W)")
    # A numpy number and a tensor of one do as well.
    if not hasattr(sample.key, "__index__"):
        raise ComponentError(f"{full_name(type(source))}: read gives the key {sample.key!r}; it is a whole number")
    return sample


def check_prepared(maker: ViewMaker, prepared: object) -> tuple[Tensor, ...]:
    """Return what a view maker prepared of an image if it is tensors.

    Raises:
        ComponentError: naming the view maker and what it returns.
    """
    if not isinstance(prepared, tuple | list) or not all(isinstance(each, Tensor) for each in prepared):
        names = ", ".join(type(each).__name__ for each in prepared) if isinstance(prepared, tuple | list) else ""
        shown = f"({names})" if names else ""
        raise _returns(maker, "prepare", prepared, "a tuple of tensors, such as (sample.image,)", shown)
    return tuple(prepared)


def stack_prepared(maker: ViewMaker, tensors: Sequence[Tensor]) -> Tensor:
    """Return the tensors of a batch of images stacked.

    Raises:
        ComponentError: their shapes differ.
    """
    for tensor in tensors:
        if tensor.shape != tensors[0].shape:
            raise ComponentError(
                f"{full_name(type(maker))}: prepare returns {tuple(tensors[0].shape)} of one image and "
                f"{tuple(tensor.shape)} of another; the shapes of all images are the same"
            )
    return torch.stack(list(tensors))


def check_views(maker: ViewMaker, views: object, num_images: int) -> Views:
    """Return the views that a maker made of a batch if they are those that it announces.

    Raises:
        ComponentError: naming the view maker and what it returns.
    """
    if not isinstance(views, Views):
        raise _returns(maker, "make", views, "sslkit.Views: Views.of makes them of crops (B, C, H, W)")
    name = f"{full_name(type(maker))}: make returns"
    made = {i: images.shape[1:] for images, ids in views.groups for i in ids}
    expected = {i: (num_images, maker.channels, size, size) for i, size in enumerate(maker.sizes)}
    if made != expected:
        different = sorted(i for i in made.keys() | expected.keys() if made.get(i) != expected.get(i))[0]
        shown = tuple(made[different]) if different in made else "missing"
        wanted = f"({', '.join(map(str, expected[different]))})" if different in expected else "no such view"
        raise ComponentError(f"{name} view {different} {shown}; by sizes, channels and batch it is {wanted}")
    if views.num_globals != maker.num_globals:
        raise ComponentError(f"{name} {views.num_globals} global views, but num_globals is {maker.num_globals}")
    return views


def check_numbers(part: object, numbers: object, taken: Iterable[str] = ()) -> Mapping[str, Any]:
    """Return what ``metrics`` of a component returned if it is numbers by name.

    Raises:
        ComponentError: naming the component and what it returns.
    """
    if not isinstance(numbers, Mapping):
        raise _returns(part, "metrics", numbers, "a mapping from names to numbers; {} for none")
    for name, value in numbers.items():
        if name in taken:
            raise ComponentError(
                f"{full_name(type(part))}: metrics names {name!r}, which the log has already; rename it"
            )
        if not (isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)):
            shown = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise ComponentError(f"{full_name(type(part))}: metrics gives {shown} as {name!r}, not a number")
    return numbers


def check_results(evaluator: Evaluator, results: object) -> dict[str, float]:
    """Return what an evaluator measured, as numbers by name.

    Raises:
        ComponentError: naming the evaluator and what it returns.
        NotFinite: a number is not finite.
    """
    wanted = 'names and numbers: yield "name", value'
    pairs = list(results.items() if isinstance(results, Mapping) else _iterated(evaluator, results, wanted))
    if not pairs:
        raise _returns(evaluator, "run", results, f"{wanted}; it measured nothing", shown="nothing")
    found: dict[str, float] = {}
    for pair in pairs:
        if not (isinstance(pair, Sequence) and len(pair) == 2 and isinstance(pair[0], str)):
            raise _returns(evaluator, "run", pair, wanted, shown=repr(pair))
        name, value = pair
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if not isinstance(value, Real):
            raise _returns(evaluator, "run", value, wanted, shown=f"{value!r} as {name!r}")
        if name in found:
            raise ComponentError(f"{full_name(type(evaluator))}: run yields {name!r} twice; give each metric its name")
        if not math.isfinite(value):
            raise NotFinite(f"{full_name(type(evaluator))}: {name} is {value}")
        found[name] = value if isinstance(value, int) else float(value)
    return found


def _iterated(evaluator: Evaluator, results: object, wanted: str) -> Iterable[object]:
    if isinstance(results, str) or not isinstance(results, Iterable):
        raise _returns(evaluator, "run", results, wanted)
    return results


def _returns(part: object, method: str, value: object, wanted: str, shown: str = "") -> ComponentError:
    """Return the error of a component whose method returned something else than is wanted."""
    kind = type(value).__name__
    article = "None" if value is None else f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
    return ComponentError(f"{full_name(type(part))}: {method} returns {shown or article}, not {wanted}")
