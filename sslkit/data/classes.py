"""Map the class numbers of test images to those of the training images."""

import logging

from torch import Tensor

from sslkit.contracts import ImageSource
from sslkit.errors import DataError, did_you_mean

logger = logging.getLogger("sslkit.data")


def check_classes(train: ImageSource, test: ImageSource) -> None:
    """Check that every class of the test images has training images, whether both come from one folder or from two.

    Raises:
        DataError: a test image has a class of which there is no training image, but there are some of a class that
            differs in case alone.
    """
    labels = labels_as_in_training(train, test)
    if labels is None or train.labels is None or train.class_names is None:
        return
    seen = {*train.labels[train.labels >= 0].unique().tolist()}
    missing = [label for label in labels[labels >= 0].unique().tolist() if label not in seen]
    names = {train.class_names[label].casefold(): train.class_names[label] for label in seen}
    for label in missing:
        name = train.class_names[label]
        if name.casefold() in names:
            raise DataError(
                f"{test.name}: {train.name} has no image of the class {name!r}, but some of "
                f"{names[name.casefold()]!r}: give both folders one name"
            )
    if missing:
        count = int(sum((labels == label).sum() for label in missing))
        shown = ", ".join(repr(train.class_names[label]) for label in missing[:4]) + (", ..." if missing[4:] else "")
        logger.warning(
            "%s: %s has no image of %d of its classes (%s), so that %d test images cannot be right",
            test.name,
            train.name,
            len(missing),
            shown,
            count,
        )


def labels_as_in_training(train: ImageSource, test: ImageSource) -> Tensor | None:
    """Return the labels of the test images (N,), int64, in the class numbers of the training images.

    Each source numbers its own classes, so equal numbers may be different classes; classes are matched by name. Where
    either source has no class names, the labels are returned as they are. Negative labels stay.

    Raises:
        DataError: a test image has a class that the training images do not have.
    """
    if test.labels is None or test.class_names is None or train.labels is None or train.class_names is None:
        return test.labels
    number = {name: i for i, name in enumerate(train.class_names)}
    labels = test.labels.clone()
    for label in test.labels[test.labels >= 0].unique().tolist():
        name = test.class_names[label]
        if name not in number:
            near = did_you_mean(name, number).partition(" Choices:")[0]  # there may be thousands
            raise DataError(
                f"{test.name}: the class {name!r} is unknown to {train.name}.{near} "
                "Both need the same class names to be compared."
            )
        labels[test.labels == label] = number[name]
    return labels
