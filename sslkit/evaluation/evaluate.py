"""Evaluation of a frozen backbone by several evaluators, as rows of results.json."""

import logging
from collections.abc import Iterable
from typing import Any

import torch

from sslkit.checks.classes import full_name
from sslkit.checks.outputs import check_results
from sslkit.contracts import Backbone, Evaluator
from sslkit.errors import ComponentError
from sslkit.progress import stage
from sslkit.types import EvaluationData

logger = logging.getLogger("sslkit.evaluation")


def evaluate(
    backbone: Backbone,
    evaluators: Iterable[Evaluator],
    data: EvaluationData,
    *,
    network: str,
    step: int | None = None,
    dataset: str | None = None,
) -> list[dict[str, Any]]:
    """Run evaluators on a backbone and return their results.

    Args:
        backbone: the network, on the device of the images.
        evaluators: what to measure. An evaluator that needs labels is skipped with a warning if there are none.
        data: training images to fit or to store, and test images.
        network: name of the network in the results, such as "teacher".
        step: optimizer steps that its weights have been trained for, or None if not known.
        dataset: name of the images in the results; None for the name of the test images.

    Returns:
        One row per evaluator that ran: step, network, evaluator, protocol, dataset, number of test images, metrics.
    """
    rows = []
    # Each name once: training and test images may be the same.
    unlabelled = list(dict.fromkeys(part.name for part in (data.train, data.test) if part.num_classes is None))
    for evaluator in evaluators:
        if evaluator.needs_labels and unlabelled:
            logger.warning("%s skipped: no labels in %s", evaluator.command, " and ".join(unlabelled))
            continue
        with stage(f"{evaluator.command} of {network}"):
            metrics = _measured(evaluator, backbone, data)
        rows.append(
            {
                "step": step,
                "network": network,
                "evaluator": evaluator.command,
                "protocol": evaluator.protocol,
                "dataset": dataset or data.test.name,
                "test_images": data.test.num_images,
                "metrics": metrics,
            }
        )
    return rows


def _measured(evaluator: Evaluator, backbone: Backbone, data: EvaluationData) -> dict[str, float]:
    """Return the metrics of one evaluator, which leaves the backbone as it was.

    Raises:
        ComponentError: it returns something else than names and numbers, or changes the backbone.
        NotFinite: a number is not finite.
    """
    modes = [(module, module.training) for module in backbone.modules()]
    trainable = [(parameter, parameter.requires_grad) for parameter in backbone.parameters()]
    before = _norms(backbone)
    try:
        found = check_results(evaluator, evaluator.run(backbone, data))
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, requires_grad in trainable:
            parameter.requires_grad_(requires_grad)
    if _norms(backbone) != before:
        raise ComponentError(
            f"{full_name(type(evaluator))}: run changes the backbone, which is frozen; let it change a copy "
            "(copy.deepcopy(backbone))"
        )
    return found


def _norms(backbone: Backbone) -> list[str]:
    """Return the norm of each weight and statistic: one wait for the device, and no memory for a copy."""
    tensors = (*backbone.parameters(), *backbone.buffers())
    weights = [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
    # As text, since a norm that is not a number equals nothing, not even itself.
    return list(map(repr, torch.stack(torch._foreach_norm(weights)).tolist())) if weights else []
