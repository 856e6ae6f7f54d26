"""Plugins on the screen, and why one failed."""

from pathlib import Path

import sslkit
from sslkit.cli.main import main
from sslkit.plugins import Plugin, Plugins
from sslkit.registry import Entry, Registry

TINY = str(Path(__file__).parents[1] / "tiny_parts.py")


def test_plugins_at_80_columns_folds_no_name(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    entries = [Entry("losses", f"a:{'Long' * 5}{i}", "some-plugin", "a-package-of-some-name 1.0") for i in range(4)]
    found = Plugins([Plugin("some-plugin", "a-package-of-some-name 1.0")], Registry(entries))
    monkeypatch.setattr("sslkit.cli.plugins.active", lambda: found)
    assert main(["plugins"]) == 0
    out = capsys.readouterr().out
    for word in ["a-package-of-some-name 1.0 · 4 components", *(entry.name for entry in entries)]:
        assert word in out


def test_plugins_shows_a_failure_with_its_traceback(tmp_path, monkeypatch, capsys):
    info = tmp_path / "broken-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 3.1\n")
    (info / "entry_points.txt").write_text("[sslkit]\nbroken = broken_plugin\n")
    (tmp_path / "broken_plugin.py").write_text("def early():\n    raise RuntimeError('too early')\nearly()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["plugins", "--plugin", TINY]) == 0
    out = capsys.readouterr().out
    for word in ["broken 3.1", "failed", "in early", "RuntimeError: too early", f"sslkit {sslkit.__version__}"]:
        assert word in out, word
    assert main(["list", "losses"]) == 0  # plugins found before the breakage
    assert main(["list", "losses", "--plugin", TINY]) == 0
    assert "not here: broken, which did not load" in capsys.readouterr().out
