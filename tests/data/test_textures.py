import pickle

import pytest
import torch

from sslkit.data import Textures
from sslkit.errors import SSLKitError


def test_samples_keep_the_contract():
    source = Textures(20, size=24, layout="object")
    assert len(source) == 20
    for index in (0, 7, 19):
        sample = source.read(index)
        assert sample.image.shape == (3, 24, 24)
        assert sample.mask.shape == (24, 24)
        assert sample.image.dtype == sample.mask.dtype == torch.uint8
        assert (sample.key, sample.label) == (int(source.keys[index]), index % 8)
    assert source.class_names[source.labels[9]] == "checker"
    assert len(set(source.keys.tolist())) == 20


def test_an_image_depends_on_split_seed_layout_and_nothing_else():
    first = Textures(600).pictures[0]
    assert torch.equal(Textures(5).pictures[0], first[:5])
    assert torch.equal(Textures(600).pictures[0], first)
    others = [Textures(600, split="test"), Textures(600, seed=1), Textures(600, layout="object")]
    for other in others:
        assert not {image.numpy().tobytes() for image in other.pictures[0]} & {i.numpy().tobytes() for i in first}
        assert not set(other.keys.tolist()) & set(Textures(600).keys.tolist())
    assert (
        len({source.fingerprint() for source in [Textures(600), Textures(601), Textures(600, size=33), *others]}) == 6
    )
    assert Textures(600).fingerprint() == Textures(600).fingerprint()


def test_known_pixels_on_every_machine():
    images = Textures(8).pictures[0].int()
    assert (images[:, 0, 3, 5] - torch.tensor([79, 190, 139, 194, 127, 123, 182, 76])).abs().max() <= 1


def test_full_textures_fill_the_picture_and_objects_lie_on_a_plain_ground():
    assert Textures(16).pictures[1].min() == 1
    images, masks = Textures(400, layout="object").pictures
    share = masks.float().mean((1, 2))
    assert share.min() > 0.05
    assert share.max() < 0.7
    # Neighbouring pixels of the ground differ little, those of the textures much.
    steps = (images[..., 1:].int() - images[..., :-1].int()).abs().amax(1)
    both, neither = masks[..., 1:] * masks[..., :-1] == 1, masks[..., 1:] + masks[..., :-1] == 0
    border = torch.nn.functional.max_pool2d(masks[:, None].float(), 5, 1, 2)[:, 0, :, 1:] > 0
    assert steps[neither & ~border].max() <= 4
    assert steps[both].float().mean() > 15


def test_textures_are_almost_grey():
    images = Textures(200).pictures[0].int()
    assert (images.amax(1) - images.amin(1)).max() <= 17
    assert images.amax((1, 2, 3)).sub(images.amin((1, 2, 3))).min() > 60
    grey = Textures(200, channels=1).pictures[0].int()
    assert grey.shape == (200, 1, 32, 32)
    assert (grey[:, 0] - images.float().mean(1)).abs().max() <= 1


def nearest_label(train, test, labels):
    """The label of the most similar picture, by cosine."""
    train, test = (torch.nn.functional.normalize(x.flatten(1).float(), dim=1) for x in (train, test))
    return labels[(test @ train.T).argmax(1)]


def test_pixels_say_little_and_the_power_spectrum_much():
    train, test = Textures(1600), Textures(400, split="test")

    def accuracy(see):
        found = nearest_label(see(train.pictures[0]), see(test.pictures[0]), train.labels)
        return (found == test.labels).float().mean().item()

    def spectrum(images):
        grey = images.float().mean(1)
        grey = (grey - grey.mean((1, 2), keepdim=True)) / grey.std((1, 2), keepdim=True)
        return torch.fft.fft2(grey).abs().log1p()

    assert accuracy(lambda images: images) < 0.4
    assert accuracy(spectrum) > accuracy(lambda images: images) + 0.2


def test_textures_travel_to_workers():
    source = Textures(10)
    copy = pickle.loads(pickle.dumps(source))
    assert torch.equal(copy.read(3).image, source.read(3).image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "tets"}, "no split 'tets'. Did you mean 'test'"),
        ({"layout": "objects"}, "no layout 'objects'. Did you mean 'object'"),
        ({"num_images": 0}, r"num_images of Textures lies in \[1, 10000000\], not 0"),
        ({"num_images": 10**9}, r"num_images of Textures lies in \[1, 10000000\], not 1000000000"),
        ({"size": 4}, r"size of Textures lies in \[8, 4096\], not 4"),
        ({"channels": 4}, "channels of Textures are 1 or 3, not 4"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(SSLKitError, match=message):
        Textures(**arguments)
