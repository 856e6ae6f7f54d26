"""Evaluation of a frozen backbone by several evaluators, as rows of results.json."""

import logging
from collections.abc import Iterable
from typing import Any

from sslkit.contracts import Backbone, Evaluator
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
            metrics = dict(evaluator.run(backbone, data))
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
