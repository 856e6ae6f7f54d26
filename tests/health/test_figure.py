"""The figure of runs: their curves and the moment of a verdict."""

import math

import pytest
from folders_of_runs import K, rows, write_run

from sslkit.errors import SSLKitError
from sslkit.health.doctor import diagnose_run
from sslkit.health.figure import draw, save


def test_the_figure_shows_every_run_and_the_moment_of_a_verdict(tmp_path):
    ill = diagnose_run(write_run(tmp_path / "ill", rows(400, ill_from=100)))
    well = diagnose_run(write_run(tmp_path / "well", rows(200)))
    entropy, kl = draw([ill, well]).axes
    assert entropy.get_title().startswith("entropy")
    assert kl.get_title().startswith("KL")
    curves = [line for line in kl.get_lines() if len(line.get_xdata()) > 2]
    assert [len(line.get_xdata()) for line in curves] == [40, 20]
    (moment,) = (line for line in kl.get_lines() if len(line.get_xdata()) == 2)
    assert moment.get_xdata()[0] == pytest.approx(ill.verdict.step / 62)
    (level,) = (line for line in entropy.get_lines() if line.get_linestyle() == "--")
    assert level.get_ydata()[0] == pytest.approx(math.log(K), abs=0.01)


def test_runs_without_prototypes_are_drawn_by_their_embeddings(tmp_path):
    byol = [{"step": 10.0, "epoch": 0.1, "loss": 1.0, "image_cosine": 0.2, "embedding_directions": 3.0}]
    found = [diagnose_run(write_run(tmp_path / "byol", byol)), diagnose_run(write_run(tmp_path / "dino", rows(100)))]
    assert [axis.get_title()[:6] for axis in draw(found).axes] == ["cosine", "direct"]


def test_a_figure_is_written_or_refused_with_the_choices(tmp_path):
    found = [diagnose_run(write_run(tmp_path / "run", rows(100)))]
    assert save(found, tmp_path / "a.svg").stat().st_size > 1000
    with pytest.raises(SSLKitError, match=r"a\.bmp: it can be \.png, \.svg, \.pdf, such as .*a\.png"):
        save(found, tmp_path / "a.bmp")
    with pytest.raises(SSLKitError, match="there is no folder"):
        save(found, tmp_path / "no" / "a.png")


@pytest.mark.parametrize("name", ["doctor.png", "doctor.svg", "doctor.pdf"])
def test_a_symbolic_link_in_the_folder_is_replaced_not_followed(tmp_path, name):
    """A run folder may be somebody else's."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    folder = write_run(tmp_path / "run", rows(100))
    (folder / name).symlink_to(precious)
    save([diagnose_run(folder)], folder / name)
    assert precious.read_text() == "mine"
    assert not (folder / name).is_symlink()
    assert (folder / name).stat().st_size > 1000
    assert not list(folder.glob(".*"))


def test_a_figure_that_cannot_be_written_leaves_nothing(tmp_path):
    folder = write_run(tmp_path / "run", rows(100))
    (folder / "doctor.png").mkdir()
    with pytest.raises(SSLKitError, match=r"doctor\.png cannot be written: Is a directory"):
        save([diagnose_run(folder)], folder / "doctor.png")
    assert not list(folder.glob(".*"))
