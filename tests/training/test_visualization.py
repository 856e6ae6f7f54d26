"""Images of a run as pictures."""

import pytest
import torch

from sslkit.training.visualization import VisualizationData
from sslkit.types import Preprocessing


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_normalised_images_become_pictures(channels):
    mean, std = [0.5] * channels, [0.25] * channels
    visualization = VisualizationData(None, Preprocessing(channels, mean, std), torch.device("cpu"), None, None)
    image = torch.rand(channels, 4, 6)
    picture = visualization.as_picture((image - 0.5) / 0.25)
    bands = image[:3] if channels >= 3 else image[:1].expand(3, -1, -1)
    torch.testing.assert_close(picture, bands.permute(1, 2, 0))
    assert visualization.as_picture(image * 100).max() <= 1
