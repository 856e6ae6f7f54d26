"""Distances from the student to the targets."""

from sslkit.losses.cross_entropy import CrossEntropy as CrossEntropy
