"""Checkpoints: everything that the next step reads, and first weights from elsewhere."""
