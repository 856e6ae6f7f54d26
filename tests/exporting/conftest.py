"""Small run folders, written as a run writes them."""

import json

import pytest
import torch

from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.run_folder.folder import Record, RunFolder
from sslkit.types import Preprocessing

STATISTICS = Preprocessing(3, [0.5] * 3, [0.25] * 3, None, 32, 36)


def lived_in(backbone):
    """No weight and no statistic is what it was at the start, and the layout is that of training."""
    with torch.no_grad():
        for tensor in backbone.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.2 * torch.rand_like(tensor)).add_(0.02 * torch.rand_like(tensor))
    return backbone.to(memory_format=torch.channels_last)


@pytest.fixture
def make_run(tmp_path):
    """Return a maker of run folders: statistics, a backbone for each network, and what the run wrote besides."""

    def make(preprocessing=STATISTICS, recipe="data: {train: Textures}\n", results=(), name="run", **networks):
        folder = RunFolder(tmp_path / name)
        folder.start(Record("tiny", recipe, "abc"), preprocessing, resume=False)
        if results:
            folder.results.write_text(json.dumps(results))
        small = networks or {n: TimmBackbone("test_vit", model_args={"depth": 1}) for n in ("teacher", "student")}
        folder.save_backbones({network: lived_in(backbone) for network, backbone in small.items()})
        return folder.path

    return make
