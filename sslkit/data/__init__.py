"""Image sources: an index of keys and labels, and a decoder that never drops a channel silently."""

from sslkit.data.hugging_face import HuggingFaceImages
from sslkit.data.textures import Textures

__all__ = ["HuggingFaceImages", "Textures"]
