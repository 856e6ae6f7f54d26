"""Views of an image: what student and teacher see in training, and what a frozen backbone is judged on."""

from sslkit.views.evaluation import EvaluationView
from sslkit.views.multi_crop import MultiCrop

__all__ = ["EvaluationView", "MultiCrop"]
