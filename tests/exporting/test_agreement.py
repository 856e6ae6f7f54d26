"""An export is loaded back and compared before it is there."""

import pytest
import torch
from exports import as_a_user

from sslkit.errors import SSLKitError
from sslkit.exporting.agreement import TOLERANCE, largest_difference, trial_images
from sslkit.exporting.export import TARGETS, Target, export
from sslkit.types import Preprocessing


def shifted(by):
    def read(folder):
        model = as_a_user(folder)
        return lambda images: model(images) * (1 + by)

    return read


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (shifted(3 * TOLERANCE), "differ from the run's by 3.0e-04 of their length, more than 1e-04"),
        (shifted(float("nan")), "differ from the run's by nan"),
        (lambda folder: lambda images: as_a_user(folder)(images)[:, 1:], "by inf"),
    ],
    ids=["other numbers", "NaN", "another shape"],
)
def test_an_export_that_says_something_else_is_refused_and_leaves_nothing(read, said, make_run, tmp_path, monkeypatch):
    monkeypatch.setitem(TARGETS, "timm", Target(TARGETS["timm"].write, read))
    run = make_run()
    with pytest.raises(SSLKitError, match=said):
        export(run)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_rounding_passes(make_run, monkeypatch):
    monkeypatch.setitem(TARGETS, "timm", Target(TARGETS["timm"].write, shifted(0.5 * TOLERANCE)))
    assert export(make_run()).difference == pytest.approx(0.5 * TOLERANCE, rel=0.05)


def test_the_difference_is_that_of_the_worst_image():
    expected = [torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[0.0, 2.0]])]
    found = iter([torch.tensor([[3.0, 4.5], [0.0, 1.0]]), torch.tensor([[0.0, 1.5]])])
    assert largest_difference(lambda images: next(found), [torch.zeros(2), torch.zeros(1)], expected) == 0.25


def test_trial_images_are_normalised_and_leave_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    noise, textures, one = trial_images(Preprocessing(5, [0.1, 0.5, 0.5, 0.5, 0.5], [0.2] * 5, [0, 9], 12, 17))
    assert torch.equal(torch.rand(1), expected)
    assert (noise.shape, textures.shape, one.shape) == ((4, 5, 12, 12), (8, 5, 12, 12), (1, 5, 12, 12))
    # Bands 0 and 3 hold the same pixels and have other means.
    torch.testing.assert_close(textures[:, 0] - textures[:, 3], torch.full_like(textures[:, 0], 2.0))
    assert textures.std() > 0.3
    assert textures.min() >= -2.5
