"""Checks of a component that was just built: what its contract asks of it, and state that would be lost."""

import inspect
import reprlib
import types
from collections.abc import Iterator, Sequence
from functools import cached_property
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
import torch
from torch import Tensor, nn

from sslkit.checks.classes import check_class, contract_methods, full_name, is_own
from sslkit.contracts import (
    Backbone,
    Callback,
    CollapseOperator,
    Evaluator,
    Head,
    ImageSource,
    Loss,
    Optimizer,
    Predictor,
    TeacherUpdate,
    ViewMaker,
)
from sslkit.errors import ComponentError
from sslkit.schedules import Schedule
from sslkit.types import TargetKind

CONTRACTS = (
    Backbone, Head, Predictor, ViewMaker, TeacherUpdate, CollapseOperator, Loss, Optimizer, Schedule, ImageSource,
    Evaluator, Callback,
)  # fmt: skip


def check_component(part: object) -> None:
    """Refuse a component that does not keep to its contract.

    Args:
        part: what a constructor returned; what extends no contract is not looked at.

    Raises:
        ComponentError: naming the class, what is missing and how to add it.
    """
    contract = next((contract for contract in CONTRACTS if isinstance(part, contract)), None)
    if contract is None:
        return
    name = full_name(type(part))
    check_class(type(part), contract, name)
    if isinstance(part, nn.Module):
        _check_initialised(part)
    for attribute, hint, description, required in _attributes(contract):
        _check_attribute(part, attribute, hint, description, required, name)
    _check_schedules(part, contract, name)
    if isinstance(part, nn.Module):
        _check_tensors(part, name)
    if isinstance(part, Loss) and not part.accepts:
        raise ComponentError(f"{name}: accepts is empty; it is a frozenset of {', '.join(get_args(TargetKind))}")
    if isinstance(part, Loss | CollapseOperator):
        _check_not_trained(part, name)
    if isinstance(part, CollapseOperator):
        _check_value("yields", part.yields, TargetKind, name)
        _check_value("gives_negatives", part.gives_negatives, bool, name)
    if isinstance(part, Head):
        _check_head(part, name)
    if isinstance(part, ImageSource):
        _check_index(part, name)


def _check_initialised(module: nn.Module) -> None:
    if "_modules" not in vars(module):
        raise not_initialised(type(module))
    for child in vars(module)["_modules"].values():
        if child is not None:
            _check_initialised(child)


def not_initialised(cls: type) -> ComponentError:
    """Return the error of a module whose constructor does not call that of torch's module."""
    return ComponentError(
        f"{full_name(cls)}: __init__ does not call super().__init__() before it sets anything; make that its first line"
    )


def _attributes(contract: type) -> Iterator[tuple[str, Any, str, bool]]:
    """Yield name, type and description of the attributes of a contract, and whether a component must set them."""
    hints = get_type_hints(contract)
    described = docstring_parser.parse(contract.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE).params
    texts = {each.arg_name: " ".join((each.description or "").split()) for each in described}
    for owner in (owner for owner in contract.__mro__ if is_own(owner)):
        for name in vars(owner).get("__annotations__", {}):
            yield name, hints[name], texts.get(name, ""), name not in vars(owner)


def _check_attribute(part: object, attribute: str, hint: Any, description: str, required: bool, name: str) -> None:
    if isinstance(inspect.getattr_static(type(part), attribute, None), property | cached_property):
        # It may be costly to compute, as the labels of a large data set are.
        return
    try:
        value = getattr(part, attribute)
    except AttributeError:
        if not required:
            raise
        description = f": {description.rstrip('.')}" if description else ""
        raise ComponentError(f"{name} does not set {attribute}, which is {_words(hint)}{description}") from None
    _check_value(attribute, value, hint, name)


def _check_value(attribute: str, value: Any, hint: Any, name: str) -> None:
    if fits(value, hint):
        return
    plain = isinstance(value, str | int | float | tuple | list | set | frozenset)
    shown = reprlib.repr(value) if plain else type(value).__name__
    fix = f"; put @property above def {attribute}" if inspect.ismethod(value) else ""
    raise ComponentError(f"{name}: {attribute} must be {_words(hint)}, not {'a method' if fix else shown}{fix}")


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of a type of the contracts."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is ClassVar:
        return fits(value, arguments[0])
    if origin in (Union, types.UnionType):
        return any(fits(value, member) for member in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin in (frozenset, Sequence):
        items = () if isinstance(value, str) or not hasattr(value, "__iter__") else value
        return items is value and all(fits(item, arguments[0]) for item in items)
    if origin is tuple:
        return isinstance(value, tuple | list) and len(value) == len(arguments)
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _words(hint: Any) -> str:
    """Return the name of a type of the contracts for messages."""
    origin, arguments = get_origin(hint), get_args(hint)
    plain = {int: "a whole number", float: "a number", str: "text", bool: "True or False", type(None): "None"}
    if origin is ClassVar:
        return _words(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(map(_words, arguments))
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin is frozenset:
        return f"a frozenset, each {_words(arguments[0])}"
    if origin in (Sequence, tuple):
        return f"a list, each {_words(arguments[0])}"
    return plain.get(hint) or f"a {getattr(hint, '__name__', hint)}"


def _check_schedules(part: object, contract: type, name: str) -> None:
    """Refuse a schedule in a component that is never given the clock: it would keep one value."""
    if contract in (Backbone, Head, Predictor):
        # A network has state of its own, and may count its steps.
        return
    words = {word for method in contract_methods(contract).values() for word in inspect.signature(method).parameters}
    if words & {"clock", "run"}:
        return
    for attribute, value in vars(part).items():
        if isinstance(value, Schedule):
            raise ComponentError(
                f"{name}: {attribute} is a schedule, {type(value).__name__}, but no method of a {contract.__name__} is "
                "given the clock, so it could not change; give a number"
            )


def _check_tensors(part: nn.Module, name: str) -> None:
    for attribute, value in vars(part).items():
        if isinstance(value, Tensor):
            raise ComponentError(
                f"{name}: {attribute} is a plain tensor, which checkpoints do not save and no GPU gets; write "
                f"self.register_buffer({attribute!r}, ...)"
            )


def _check_not_trained(part: nn.Module, name: str) -> None:
    trainable = [parameter for parameter, value in part.named_parameters() if value.requires_grad]
    if trainable:
        raise ComponentError(
            f"{name}: {', '.join(trainable)} would never be trained, since the optimizer gets the parameters of the "
            "student alone; make it an argument or a buffer, or move the layer to a head or a predictor"
        )


def _check_head(head: Head, name: str) -> None:
    used = {*head.projector.parameters(), *(() if head.prototypes is None else head.prototypes.parameters())}
    unused = [parameter for parameter, value in head.named_parameters() if value.requires_grad and value not in used]
    if unused:
        raise ComponentError(
            f"{name}: {', '.join(unused)} would never be trained, since only projector and prototypes of a head are "
            "called; make it a part of one of them"
        )


def _check_index(source: ImageSource, name: str) -> None:
    if isinstance(inspect.getattr_static(type(source), "keys", None), property | cached_property):
        return
    if source.keys.dtype is not torch.int64 or source.keys.ndim != 1:
        raise ComponentError(
            f"{name}: keys are one int64 an image, (N,), not {source.keys.dtype} {tuple(source.keys.shape)}"
        )
    if len(source) != len(source.keys):
        raise ComponentError(f"{name}: len() is {len(source)}, but there are {len(source.keys)} keys")
    labels = None if isinstance(inspect.getattr_static(type(source), "labels", None), property) else source.labels
    if labels is None:
        return
    if labels.is_floating_point() or labels.shape != source.keys.shape:
        raise ComponentError(
            f"{name}: labels are one whole number an image, ({len(source.keys)},), not {labels.dtype} "
            f"{tuple(labels.shape)}"
        )
    names = source.class_names
    if names is not None and len(labels) and int(labels.max()) >= len(names):
        raise ComponentError(f"{name}: class_names has {len(names)} names, but a label is {int(labels.max())}")
