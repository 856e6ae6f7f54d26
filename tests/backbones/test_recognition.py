"""Bare weights are built into the network that they are of, to the same features, or the network has to be named."""

import pytest
import timm
import torch
import torchvision

from sslkit.backbones.foreign import Weights
from sslkit.backbones.recognition import recognise
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.errors import SSLKitError

resnet = torchvision.models.resnet
RESNETS = {
    "resnet18": lambda: resnet.resnet18(),
    "resnet50": lambda: resnet.resnet50(),
    "wide": lambda: resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], width_per_group=128),
    "groups": lambda: resnet.ResNet(resnet.Bottleneck, [1, 2, 1, 1], groups=32, width_per_group=4),
}


def rebuilt(weights):
    backbone = TimmBackbone(**recognise(weights)).eval()
    backbone.model.load_state_dict({n: t for n, t in weights.tensors.items() if not n.startswith("fc.")})
    return backbone


@pytest.mark.parametrize("name", RESNETS)
def test_resnets(name):
    theirs = RESNETS[name]().eval()
    ours = rebuilt(Weights("mine", theirs.state_dict()))
    theirs.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(images).cls, theirs(images))


def test_a_resnet_for_small_images():
    theirs = TimmBackbone("resnet18", in_chans=4, small_image_stem=True).eval()
    ours = rebuilt(Weights("mine", theirs.named_weights()))
    images = torch.randn(2, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours(images).cls, theirs(images).cls)


@pytest.mark.parametrize(
    ("width", "num_heads"),
    [(192, 3), (384, 6), (768, 12), (1024, 16), (1280, 16)],
)
def test_vits_have_the_published_number_of_heads(width, num_heads):
    arguments = {"embed_dim": width, "num_heads": num_heads, "img_size": 48, "patch_size": 8, "depth": 2, "in_chans": 2}
    theirs = timm.create_model("vit_small_patch16_224", num_classes=0, **arguments).eval()
    ours = rebuilt(Weights("mine", theirs.state_dict(), positions="dino"))
    images = torch.randn(2, 2, 48, 48)
    with torch.no_grad():
        assert torch.equal(ours(images).cls, theirs(images))
    assert (ours.positions, ours.in_chans, ours.num_heads) == ("dino", 2, num_heads)


def test_a_recorded_number_of_heads_and_no_bias_of_queries():
    arguments = {"embed_dim": 48, "num_heads": 4, "img_size": 32, "patch_size": 8, "depth": 1, "mlp_ratio": 2}
    theirs = timm.create_model("vit_small_patch16_224", num_classes=0, qkv_bias=False, **arguments).eval()
    ours = rebuilt(Weights("mine", theirs.state_dict(), num_heads=4))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours(images).cls, theirs(images))


def test_an_unknown_number_of_heads_has_to_be_named():
    theirs = timm.create_model("test_vit", num_classes=0).state_dict()
    with pytest.raises(SSLKitError, match=r"mine: a ViT of width 64, whose weights do not tell .*--backbone NAME"):
        recognise(Weights("mine", theirs))


@pytest.mark.parametrize(
    "tensors",
    [
        {"weight": torch.ones(2)},
        {"conv1.weight": torch.ones(2), "layer1.0.conv1.weight": torch.ones(2)},
        {"patch_embed.proj.weight": torch.ones(2), "pos_embed": torch.ones(())},
        timm.create_model("test_convnext", num_classes=0).state_dict(),
    ],
)
def test_other_networks_have_to_be_named(tensors):
    with pytest.raises(SSLKitError, match=r"mine: the network is not recognised .*--backbone NAME"):
        recognise(Weights("mine", tensors))
