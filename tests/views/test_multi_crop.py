import pickle

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from sslkit.errors import DataError, RecipeError, UnknownName
from sslkit.types import Sample
from sslkit.views import MultiCrop
from sslkit.views.draws import Stream

SMALL = {"global_size": 20, "local_size": 12, "num_local_views": 3}
KEYS = [5, -7, 2**62, 0, 99, 1234567, -(2**61)]


def samples(channels=3, dtype=torch.uint8, same_size=False):
    rng = np.random.default_rng(0)
    sizes = [(40, 40)] * 7 if same_size else rng.integers(17, 70, (7, 2)).tolist()
    images = [torch.rand(channels, *size, generator=torch.Generator().manual_seed(n)) for n, size in enumerate(sizes)]
    if not dtype.is_floating_point:
        images = [(image * (255 if dtype == torch.uint8 else 65535)).int().to(dtype) for image in images]
    return [Sample(image, key) for image, key in zip(images, KEYS)]


def run(maker, batch, epoch=3, seed=1):
    prepared = zip(*[maker.prepare(sample, epoch, seed) for sample in batch])
    keys = torch.tensor([sample.key for sample in batch])
    return maker.make([torch.stack(list(part)) for part in prepared], keys, epoch, seed)


def both_places(**arguments):
    return [
        MultiCrop(**SMALL, **arguments),
        MultiCrop(**SMALL, crop_on="device", canvas_size=33, **arguments),
    ]


@pytest.mark.parametrize("maker", both_places())
def test_groups_ids_and_shapes(maker):
    views = run(maker, samples())
    assert [group.images.shape for group in views.groups] == [(2, 7, 3, 20, 20), (3, 7, 3, 12, 12)]
    assert [group.view_ids for group in views.groups] == [(0, 1), (2, 3, 4)]
    assert views.num_globals == maker.num_globals == 2
    assert list(maker.sizes) == [20, 20, 12, 12, 12]
    assert all(group.images.dtype == torch.float32 and group.images.is_contiguous() for group in views.groups)
    assert all(group.images.isfinite().all() for group in views.groups)


def test_one_group_for_globals_and_one_for_locals_even_of_one_size():
    views = run(MultiCrop(global_size=16, local_size=16, num_local_views=2), samples())
    assert [group.view_ids for group in views.groups] == [(0, 1), (2, 3)]
    assert len(run(MultiCrop(global_size=16, num_local_views=0), samples()).groups) == 1


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"channels": 1, "mean": [0.5], "std": [0.5]},
        {"channels": 5, "mean": [0.5] * 5, "std": [0.5] * 5},
        {"jitter_probability": 1.0, "global_blur": (0.5, 0.5), "local_solarize": 0.5, "brightness": 0.8},
        {"num_global_views": 1, "global_blur": [0.5], "global_solarize": [0.1], "flip": 0.0},
    ],
)
def test_an_image_has_the_same_views_bit_for_bit_in_every_batch(place, arguments):
    maker, batch = both_places(**arguments)[place], samples(arguments.get("channels", 3))
    whole = run(maker, batch)
    order = [4, 0, 6, 2, 5, 1, 3]
    permuted = run(maker, [batch[n] for n in order])
    alone = [run(maker, [sample]) for sample in batch]
    for g, group in enumerate(whole.groups):
        assert torch.equal(permuted.groups[g].images, group.images[:, order])
        assert torch.equal(torch.cat([one.groups[g].images for one in alone], 1), group.images)


@pytest.mark.parametrize("place", [0, 1])
def test_threads_change_nothing(place):
    maker, batch, threads = both_places()[place], samples(), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run(maker, batch)
        torch.set_num_threads(2)
        two = run(maker, batch)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a.images, b.images) for a, b in zip(one.groups, two.groups))


def test_epoch_seed_key_and_view_each_matter():
    maker, batch = MultiCrop(**SMALL), samples(same_size=True)
    first = run(maker, batch).groups[0].images
    assert torch.equal(first, run(maker, batch).groups[0].images)
    assert not torch.equal(first, run(maker, batch, epoch=4).groups[0].images)
    assert not torch.equal(first, run(maker, batch, seed=2).groups[0].images)
    renamed = [Sample(sample.image, sample.key + 1) for sample in batch]
    assert not torch.equal(first, run(maker, renamed).groups[0].images)
    assert not torch.equal(first[0], first[1])


def test_more_local_views_change_no_other():
    few, many = (run(MultiCrop(**{**SMALL, "num_local_views": n}), samples()) for n in (1, 4))
    assert torch.equal(few.groups[0].images, many.groups[0].images)
    assert torch.equal(few.groups[1].images[0], many.groups[1].images[0])


def test_both_places_draw_the_same():
    batch = samples(dtype=torch.float32, same_size=True)
    workers = run(MultiCrop(**SMALL), batch)
    device = run(MultiCrop(**SMALL, crop_on="device", canvas_size=40), batch)
    for a, b in zip(workers.groups, device.groups):
        assert (a.images - b.images).abs().mean() < 1e-5


def test_geometry_alone_equals_torchvision():
    plain = {
        "jitter_probability": 0,
        "grayscale": 0,
        "global_blur": (0, 0),
        "global_solarize": (0, 0),
        "local_blur": 0,
    }
    maker, batch = MultiCrop(**SMALL, **plain, mean=[0.0] * 3, std=[1.0] * 3), samples()
    views = run(maker, batch)
    draws = maker._draw([sample.key for sample in batch], 3, 1)
    for b, sample in enumerate(batch):
        boxes, flips = maker.resolutions[1]._place(draws[b : b + 1, 2:], sample.image.shape[-2:])
        for v in range(3):
            crop = functional.resized_crop(
                sample.image, *boxes[0, v].tolist(), [12, 12], InterpolationMode.BICUBIC, antialias=True
            )
            crop = functional.horizontal_flip(crop) if flips[0, v] else crop
            assert flips[0, v] == (draws[b, 2 + v, Stream.FLIP] < 0.5)
            assert torch.equal(views.groups[1].images[v, b], crop.float() / 255)


@pytest.mark.parametrize("maker", both_places(channels=2, mean=[0.5, 0.5], std=[1, 1]))
def test_dtypes_agree(maker):
    wide = run(maker, samples(2, torch.uint16))
    floating = run(maker, samples(2, torch.float32))
    for a, b in zip(wide.groups, floating.groups):
        assert (a.images - b.images).abs().max() < 1e-3
    double = [Sample(sample.image.double(), sample.key) for sample in samples(2, torch.float32)]
    for a, b in zip(run(maker, double).groups, floating.groups):
        assert a.images.dtype == torch.float64
        assert (a.images - b.images).abs().max() < 1e-4


@pytest.mark.parametrize("place", [0, 1])
def test_value_range_is_applied_once(place):
    batch = samples(2, torch.float32)
    expected = run(both_places(channels=2, mean=[0, 0], std=[1, 1])[place], batch)
    scaled = [Sample(sample.image * 3000 - 1000, sample.key) for sample in batch]
    views = run(both_places(channels=2, mean=[0, 0], std=[1, 1], value_range=(-1000, 2000))[place], scaled)
    for a, b in zip(views.groups, expected.groups):
        assert (a.images - b.images).abs().max() < 1e-4


def test_prepared_stays_small():
    for part in MultiCrop(**SMALL).prepare(samples()[0], 0, 0):
        assert part.dtype == torch.uint8
    (canvas,) = MultiCrop(**SMALL, crop_on="device", canvas_size=33).prepare(samples()[0], 0, 0)
    assert canvas.dtype == torch.uint8
    assert canvas.shape == (3, 33, 33)


def test_canvases_are_not_changed_by_the_views():
    canvases = torch.rand(4, 3, 33, 33)
    before = canvases.clone()
    MultiCrop(**SMALL, crop_on="device", canvas_size=33).make([canvases], torch.arange(4), 0, 0)
    assert torch.equal(canvases, before)


def test_autocast_changes_nothing():
    maker = both_places()[1]
    expected = run(maker, samples())
    with torch.autocast("cpu", torch.bfloat16):
        views = run(maker, samples())
    assert all(torch.equal(a.images, b.images) for a, b in zip(views.groups, expected.groups))


@pytest.mark.gpu
@pytest.mark.parametrize("maker", both_places())
def test_views_on_a_gpu_are_those_of_the_cpu(maker):
    prepared = [torch.stack(part) for part in zip(*[maker.prepare(sample, 3, 1) for sample in samples()])]
    keys = torch.tensor(KEYS)
    here, there = (maker.make([part.to(place) for part in prepared], keys, 3, 1) for place in ("cpu", "cuda"))
    for a, b in zip(here.groups, there.groups):
        assert b.images.is_cuda
        assert (a.images - b.images.cpu()).abs().max() < 1e-3


def test_survives_pickling():
    for maker in both_places():
        copy = pickle.loads(pickle.dumps(maker))
        a, b = run(maker, samples()), run(copy, samples())
        assert all(torch.equal(x.images, y.images) for x, y in zip(a.groups, b.groups))


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_local_views": 0, "global_scale": (0.2, 1.0), "hue": 0.1, "saturation": 0.4,
         "global_blur": (0.5, 0.5), "global_solarize": (0.0, 0.0)},
        {"num_local_views": 0, "global_scale": (0.08, 1.0)},
        {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2,
         "global_blur": (0.5, 0.5), "global_solarize": (0, 0)},
    ],
    ids=["MoCo-v2", "BYOL", "SwAV"],
)  # fmt: skip
def test_other_methods_are_other_arguments(arguments):
    assert run(MultiCrop(**{**SMALL, **arguments}), samples()).groups[0].images.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"global_size": 0}, "global_size"),
        ({"local_size": -1}, "local_size"),
        ({"num_global_views": 0}, "num_global_views"),
        ({"num_local_views": -1}, "num_local_views"),
        ({"global_scale": (1.0, 0.4)}, "global_scale"),
        ({"global_scale": (0.0, 0.4)}, "global_scale"),
        ({"local_scale": (0.5, 1.4)}, "local_scale"),
        ({"crop_on": "device"}, "canvas_size"),
        ({"canvas_size": 32}, "canvas_size"),
        ({"crop_on": "device", "canvas_size": 0}, "canvas_size"),
        ({"flip": 1.5}, "flip"),
        ({"brightness": -0.1}, "brightness"),
        ({"hue": 0.6}, "hue"),
        ({"jitter_probability": 2}, "jitter_probability"),
        ({"grayscale": -1}, "grayscale"),
        ({"global_blur": (1.0,)}, "global_blur"),
        ({"global_blur": (1.0, 2.0)}, "global_blur"),
        ({"global_solarize": (0.1, 0.1, 0.1)}, "global_solarize"),
        ({"num_global_views": 3}, "global_blur"),
        ({"local_blur": 1.1}, "local_blur"),
        ({"local_solarize": -0.1}, "local_solarize"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma"),
        ({"blur_sigma": (2.0, 1.0)}, "blur_sigma"),
        ({"channels": 1}, "mean"),
        ({"channels": 0}, "channels"),
        ({"channels": 1, "mean": [0], "std": [1], "hue": 0.1}, "hue"),
        ({"value_range": (1.0, 0.0)}, "value_range"),
    ],
)
def test_nonsense_is_refused_by_name(arguments, named):
    with pytest.raises(RecipeError, match=named):
        MultiCrop(**arguments)


def test_unknown_place_is_refused_with_the_choices():
    with pytest.raises(UnknownName, match=r"crop_on.*device, workers"):
        MultiCrop(crop_on="devices")


def test_wrong_channels_are_refused():
    with pytest.raises(DataError, match="4 channels"):
        MultiCrop().prepare(Sample(torch.zeros(4, 50, 50, dtype=torch.uint8), 0), 0, 0)


@pytest.mark.parametrize("shape", [(40, 41, 3), (40, 41), (1, 3, 40, 41)])
def test_what_is_no_image_is_refused_with_its_shape(shape):
    message = rf"an image is \(C, H, W\), here \(3, H, W\), not \({', '.join(map(str, shape))}\)"
    with pytest.raises(DataError, match=message):
        MultiCrop(**SMALL).prepare(Sample(torch.zeros(shape, dtype=torch.uint8), 0), 0, 0)


@pytest.mark.parametrize("maker", both_places())
def test_calling_it_prepares_and_makes(maker):
    batch, keys = samples(), torch.tensor(KEYS)
    views, expected = maker([sample.image for sample in batch], keys, epoch=3, seed=1), run(maker, batch)
    assert views.num_globals == 2
    for ours, theirs in zip(views.groups, expected.groups, strict=True):
        assert ours.view_ids == theirs.view_ids
        assert torch.equal(ours.images, theirs.images)


@pytest.mark.parametrize("maker", both_places())
def test_without_keys_torchs_generator_draws_them(maker):
    images = torch.stack([sample.image for sample in samples(same_size=True)])
    torch.manual_seed(3)
    first, second = (maker(images).groups[0].images for _ in range(2))
    torch.manual_seed(3)
    again = maker(images).groups[0].images
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert len({*maker(images[:1].repeat(5, 1, 1, 1)).groups[0].images.sum((0, 2, 3, 4)).tolist()}) == 5


@pytest.mark.parametrize("keys", [torch.arange(2), torch.arange(4), torch.arange(3)[None], torch.rand(3), [0.5] * 3, 7])
def test_keys_are_one_whole_number_an_image(keys):
    with pytest.raises(ValueError, match=r"keys are one whole number an image, \(3,\), not torch\.\w+ \("):
        MultiCrop(**SMALL)(torch.zeros(3, 3, 40, 40, dtype=torch.uint8), keys)


def test_keys_may_be_a_list():
    images, maker = [sample.image for sample in samples()], MultiCrop(**SMALL)
    listed, tensor = (maker(images, keys).groups[0].images for keys in (KEYS, torch.tensor(KEYS)))
    assert torch.equal(listed, tensor)


@pytest.mark.parametrize(("images", "keys"), [([], None), (torch.zeros(0, 3, 40, 40), torch.arange(0))])
def test_no_images_are_refused(images, keys):
    with pytest.raises(ValueError, match="at least one image"):
        MultiCrop(**SMALL)(images, keys)
