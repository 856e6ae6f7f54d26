"""Map the class numbers of test images to those of the training images."""

from torch import Tensor

from sslkit.contracts import ImageSource
from sslkit.errors import DataError, did_you_mean


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
