"""What only a step shows of the parts of a method, looked at once: state written in the wrong place, or lost."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sslkit.checks.classes import full_name, is_own
from sslkit.contracts import CollapseOperator, TeacherUpdate
from sslkit.errors import ComponentError
from sslkit.types import Projection

logger = logging.getLogger("sslkit.method")


class FirstStep:
    """Watches the first targets and the first update of a method; afterwards it does nothing.

    It compares objects and their version counters, never values: nothing waits for the device.
    """

    def __init__(self) -> None:
        self._saw_targets = self._saw_update = False

    @contextmanager
    def targets(self, operator: CollapseOperator, teacher: Projection) -> Iterator[None]:
        """Refuse an operator whose ``forward`` writes inside the block.

        Raises:
            ComponentError: naming the operator and what it changes.
        """
        if self._saw_targets:
            yield
            return
        name = full_name(type(operator))
        outputs = {f"teacher.{key}": getattr(teacher, key) for key in ("embedding", "logits")}
        before = _versions(dict(operator.named_buffers())), _versions(outputs)
        yield
        changed = _changed(before[0], _versions(dict(operator.named_buffers())))
        if changed:
            raise ComponentError(
                f"method.collapse: {name}: forward changes its state {changed[0]}; write state in update, which runs "
                "once an optimizer step"
            )
        if changed := _changed(before[1], _versions(outputs)):
            raise ComponentError(
                f"method.collapse: {name}: forward changes {changed[0]} in place, which update and the log read too; "
                "make a new tensor"
            )
        self._saw_targets = True

    def gradients(self, parts: Mapping[str, nn.Module]) -> None:
        """Warn of a part of the student that the loss does not reach, given the parts after the backward pass."""
        if self._saw_update:
            return
        for name, part in parts.items():
            trainable = [parameter for parameter in part.parameters() if parameter.requires_grad]
            if trainable and all(parameter.grad is None for parameter in trainable):
                logger.warning(
                    "%s gets no gradient, so it does not learn: the loss does not use it, or something detaches it "
                    "(.detach(), torch.no_grad)", f"the {name} of the student, {full_name(type(part))},",
                )  # fmt: skip

    @contextmanager
    def update(
        self, student: nn.Module, teacher: nn.Module, rule: TeacherUpdate, operator: CollapseOperator | None
    ) -> Iterator[None]:
        """Warn of state that is set inside the block and that no checkpoint would hold.

        Raises:
            ComponentError: a parameter of the student was put into the teacher.
        """
        if self._saw_update:
            yield
            return
        shapes = {} if operator is None or is_own(type(operator)) else _shapes(operator)
        watched = [part for part in (rule, operator) if part is not None and not is_own(type(part))]
        before = [_plain_state(part) for part in watched]
        yield
        self._saw_update = True
        if teacher is not student and {*teacher.parameters()} & {*student.parameters()}:
            raise ComponentError(
                f"method.teacher: {full_name(type(rule))} puts parameters of the student into the teacher, where they "
                "must be copied (parameter.copy_); for one network as both, set shares_weights = True"
            )
        if resized := [name for name, shape in shapes.items() if _shapes(operator).get(name) != shape]:
            raise ComponentError(
                f"method.collapse: {full_name(type(operator))}: update changes the shape of {resized[0]}, which a "
                "checkpoint could not be loaded into; make it as large as it gets in __init__"
            )
        for part, old in zip(watched, before):
            for attribute in _changed(old, _plain_state(part)):
                fix = "register it with self.register_buffer" if isinstance(part, nn.Module) else "compute it anew"
                logger.warning(
                    "%s: a step changes %s, which checkpoints do not save, so a resumed run starts without it; %s",
                    full_name(type(part)), attribute, fix,
                )  # fmt: skip


def _shapes(operator: CollapseOperator | None) -> dict[str, torch.Size]:
    return {name: buffer.shape for name, buffer in operator.named_buffers()} if operator is not None else {}


def _versions(tensors: dict[str, Tensor | None]) -> dict[str, tuple[Any, int]]:
    """Return each tensor with how often it was written."""
    return {
        name: (tensor, -1 if tensor is None or tensor.is_inference() else tensor._version)
        for name, tensor in tensors.items()
    }


def _plain_state(part: TeacherUpdate | CollapseOperator) -> dict[str, tuple[Any, int]]:
    """Return what a component keeps that its state dict has not, without what torch keeps of a module."""
    ignored = {*vars(nn.Module())}
    state = {name: value for name, value in vars(part).items() if name not in ignored}
    if isinstance(part, nn.Module):
        state |= {name: part.get_buffer(name) for name in part._non_persistent_buffers_set}
    counted = {name: value._version if isinstance(value, Tensor) else 0 for name, value in state.items()}
    # The length: a list may grow in place.
    return {
        name: (value, len(value) if isinstance(value, list | dict) else counted[name]) for name, value in state.items()
    }


def _changed(before: dict[str, tuple[Any, int]], after: dict[str, tuple[Any, int]]) -> list[str]:
    """Return the names that are new, or hold another object, or one that was written."""
    return [
        name
        for name, (value, version) in after.items()
        if name not in before or before[name][0] is not value or before[name][1] != version
    ]
