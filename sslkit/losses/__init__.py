"""Losses between student outputs and targets."""

from sslkit.losses.cross_entropy import CrossEntropy as CrossEntropy
from sslkit.losses.info_nce import InfoNCE as InfoNCE
from sslkit.losses.mse import MSE as MSE
