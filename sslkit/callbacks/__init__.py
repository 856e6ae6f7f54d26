"""Callbacks of a run."""

from sslkit.callbacks.summary_picture import SummaryPicture as SummaryPicture
