"""results.json holds a row a measurement."""

from sslkit.run_folder.results import append_results, drop_results, read_results


def test_results_are_appended_and_later_ones_dropped(tmp_path):
    path = tmp_path / "results.json"
    assert read_results(path) == []
    drop_results(path, since=0)
    assert not path.exists()
    append_results(path, [{"step": 0}, {"step": None}])
    append_results(path, [{"step": 4}, {"step": 8}])
    drop_results(path, since=4)
    assert read_results(path) == [{"step": 0}, {"step": None}]
