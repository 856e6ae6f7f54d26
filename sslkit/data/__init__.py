"""Where images come from: an index of keys and labels, and a read that never drops a band in silence."""

from sslkit.data.hugging_face import HuggingFaceImages
from sslkit.data.textures import Textures

__all__ = ["HuggingFaceImages", "Textures"]
