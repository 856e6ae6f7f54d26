"""Where a backbone comes from: recipe, papers, results."""

import pytest

from sslkit.errors import SSLKitError
from sslkit.exporting.export import export
from sslkit.exporting.provenance import papers, without_places


def test_papers_come_from_docstrings_wherever_a_component_stands():
    found = papers({"method": {"x": [{"Centering": {"y": "Copy"}}, "nothing"]}, "data": "KNN"})
    assert list(found) == ["Centering", "Copy"]
    assert found["Copy"][0] == "[arXiv:2006.09882](https://arxiv.org/abs/2006.09882)"


def test_places_become_names():
    given = {"a": ["/x/y", "~/z", "~", "x/y", "hf-hub:a/b", 3, None], "b": {"c": "/"}}
    assert without_places(given) == {"a": ["y", "z", "~", "x/y", "hf-hub:a/b", 3, None], "b": {"c": ""}}


def test_a_damaged_file_of_the_run_is_named(make_run, tmp_path):
    run = make_run()
    (run / "results.json").write_text("[{")
    with pytest.raises(SSLKitError, match=r"results.json cannot be read"):
        export(run, "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
