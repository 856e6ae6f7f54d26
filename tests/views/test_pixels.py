import pytest
import torch

from sslkit.errors import DataError, RecipeError
from sslkit.views.pixels import Normalize, to_resizable, to_unit


def test_ranges_of_dtypes():
    assert to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])
    assert to_unit(torch.tensor([0, 13107, 65535], dtype=torch.uint16)).tolist() == pytest.approx([0, 0.2, 1])
    assert to_unit(torch.tensor([-0.5, 0.25, 2.0])).tolist() == [0, 0.25, 1]
    assert to_unit(torch.tensor([0.25], dtype=torch.float16)).dtype == torch.float32
    assert to_unit(torch.tensor([0.25], dtype=torch.float64)).dtype == torch.float64


def test_given_range():
    values = torch.tensor([-100, 0, 400, 1900, 3000], dtype=torch.int16)
    assert to_unit(values, (0, 2000)).tolist() == pytest.approx([0, 0, 0.2, 0.95, 1])
    assert to_unit(torch.tensor([10, 30], dtype=torch.uint8), (10, 50)).tolist() == [0, 0.5]


def test_input_is_left_alone():
    for image in (torch.rand(2, 3), torch.randint(0, 255, (2, 3), dtype=torch.uint8)):
        before = image.clone()
        to_unit(image).add_(1)
        assert torch.equal(image, before)


def test_dtype_without_a_range_is_refused():
    with pytest.raises(DataError, match=r"int16.*value_range"):
        to_unit(torch.zeros(2, dtype=torch.int16))


def test_only_bytes_are_resized_as_they_are():
    assert to_resizable(torch.zeros(2, dtype=torch.uint8)).dtype == torch.uint8
    assert to_resizable(torch.zeros(2, dtype=torch.uint16)).dtype == torch.float32


@pytest.mark.parametrize(("low", "high", "shown"), [(-2.1, 2.6, "-2.1 to 2.6"), (0, 255, "0 to 255")])
def test_floating_images_that_are_not_in_0_to_1_are_refused(low, high, shown):
    image = torch.linspace(low, high, 12).view(3, 2, 2)
    with pytest.raises(DataError, match=f"lie in 0 .. 1, but one goes from {shown}; .* normalise, or set value_range"):
        to_resizable(image)
    assert torch.equal(to_resizable(image, (low, high)), to_unit(image, (low, high)))


def test_what_resizing_overshoots_is_clamped():
    assert to_resizable(torch.tensor([-0.3, 0.25, 1.4])).tolist() == [0, 0.25, 1]


def test_normalize():
    images = torch.rand(4, 2, 3, 3, dtype=torch.float64)
    normalized = Normalize(2, [0.5, 0.1], [0.25, 2])(images)
    assert torch.equal(normalized[:, 0], (images[:, 0] - 0.5) / 0.25)
    assert torch.equal(normalized[:, 1], (images[:, 1] - 0.1) / 2)


@pytest.mark.parametrize(
    ("mean", "std", "named"), [([0.5], [1, 1], "mean"), ([0, 0], [1], "std"), ([0, 0], [1, 0], "std")]
)
def test_numbers_that_do_not_fit_are_refused(mean, std, named):
    with pytest.raises(RecipeError, match=named):
        Normalize(2, mean, std)
