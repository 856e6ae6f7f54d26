"""Self-supervised learning for images: one student-teacher step with exchangeable parts."""

__version__ = "0.1.0"
