"""Run evaluators on a frozen backbone and return rows of results.json."""

import logging
from collections.abc import Iterable
from typing import Any

from sslkit.contracts import Backbone, Evaluator
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
    """Run every evaluator that the data allow.

    Args:
        backbone: the network, on the device of the data.
        evaluators: what to measure; one that needs labels is skipped, with one line in the log, without.
        data: what to learn from and what to be judged on.
        network: what the backbone is ("teacher").
        step: the optimizer step of its weights, if known.
        dataset: what the images are; None takes the name of the test images.

    Returns:
        One row an evaluator: step, network, evaluator, protocol, dataset, metrics.
    """
    rows = []
    unlabelled = list(dict.fromkeys(part.name for part in (data.train, data.test) if part.num_classes is None))
    for evaluator in evaluators:
        if evaluator.needs_labels and unlabelled:
            logger.warning("%s skipped: no labels in %s", evaluator.command, " and ".join(unlabelled))
            continue
        rows.append(
            {
                "step": step,
                "network": network,
                "evaluator": evaluator.command,
                "protocol": evaluator.protocol,
                "dataset": dataset or data.test.name,
                "metrics": dict(evaluator.run(backbone, data)),
            }
        )
    return rows
