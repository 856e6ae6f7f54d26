"""Distances from the student to the targets."""

from sslkit.losses.cross_entropy import CrossEntropy as CrossEntropy
from sslkit.losses.info_nce import InfoNCE as InfoNCE
from sslkit.losses.mse import MSE as MSE
