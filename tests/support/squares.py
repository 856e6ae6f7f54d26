"""Images of one color, without files."""

import torch

from sslkit.contracts import ImageSource
from sslkit.errors import UnreadableImage
from sslkit.types import Sample


class Squares(ImageSource):
    """Image i is filled with i; a damaged one cannot be read."""

    def __init__(self, num_images, labels=None, damaged=(), name="squares", class_names=None):
        self.class_names = class_names
        self.keys, self.labels, self.name, self.damaged = torch.arange(num_images), labels, name, damaged

    def read(self, index):
        if index in self.damaged:
            raise UnreadableImage(f"{index}.png", "truncated")
        return Sample(torch.full((3, 4, 4), index, dtype=torch.uint8), index)
