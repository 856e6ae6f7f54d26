"""Checkpoints, and initial weights from other runs and files."""
