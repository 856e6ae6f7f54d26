"""The quickstart as a new user runs it; minutes long."""

import json

import pytest

from sslkit.cli.main import main


@pytest.mark.long
def test_the_quickstart_learns_what_pixels_and_an_untrained_network_do_not_show(tmp_path, capsys):
    assert main(["train", "quickstart", "--run-dir", str(tmp_path / "run")]) == 0
    rows = json.loads((tmp_path / "run/results.json").read_text())
    last = {row["network"]: row["metrics"]["knn/top1@20"] for row in rows}
    others = [last[name] for name in last if name not in ("teacher", "student")]
    # Seven runs on three machines gave 91.2 to 96.0 where 51.4 was the best of the rest.
    assert min(last["teacher"], last["student"]) > 85
    assert max(others) < 60
    assert (tmp_path / "run/summary.png").stat().st_size > 100_000
    out = capsys.readouterr().out
    assert "chance" in out
    assert "knn-v1" in out
    assert main(["doctor", str(tmp_path / "run")]) == 0
    assert "\n  healthy" in capsys.readouterr().out
