"""Exports as a user loads them."""

import timm
import torch

from sslkit.types import Preprocessing

CHANNELS_8 = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16]}


CASES = {
    "vit 32/4": (
        dict(name="vit_tiny_patch16_224", model_args={"img_size": 32, "patch_size": 4, "depth": 2, "embed_dim": 48}),
        Preprocessing(3, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3], None, 32, 32),
    ),
    "vit at another size than its own": (
        dict(name="test_vit", drop_path_rate=0.2),
        Preprocessing(3, [0.5] * 3, [0.25] * 3, None, 64, 73),
    ),
    "resnet": (dict(name="resnet18", model_args=CHANNELS_8), Preprocessing(3, [0.4] * 3, [0.2] * 3, None, 44, 69)),
    "five channels": (
        dict(name="resnet18", in_chans=5, model_args=CHANNELS_8),
        Preprocessing(5, [0.1, 0.2, 0.3, 0.4, 0.5], [0.2] * 5, [0, 10000], 33, 40),
    ),
    "grey": (dict(name="test_vit", in_chans=1, fused_attention=False), Preprocessing(1, [0.3], [0.2], None, 32, 36)),
}


def as_a_user(folder):
    return timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()


def images_of(preprocessing, batch=3):
    return torch.randn(batch, preprocessing.channels, preprocessing.size, preprocessing.size)


def far(found, expected):
    return ((found - expected).norm(dim=1) / expected.norm(dim=1)).max()
