"""Views of images, for training and for evaluation."""

from sslkit.views.evaluation import EvaluationView
from sslkit.views.multi_crop import MultiCrop

__all__ = ["EvaluationView", "MultiCrop"]
