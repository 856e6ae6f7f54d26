"""results.json holds a row a measurement."""

import pytest

from sslkit.errors import DataError
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


@pytest.mark.parametrize(
    "text", ["{", "", "{}", "[3]", "[{}]", '[{"step": "3"}]', '[{"step": 3, "metrics": {"a": "b"}}]', "\udcff"]
)
def test_a_damaged_file_is_a_sentence(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=r"results\.json (cannot be read|is damaged)"):
        read_results(path)


def test_rows_without_a_step_are_read(tmp_path):
    row = {"step": None, "network": "a", "protocol": "b", "metrics": {"x": 1.0}}
    append_results(tmp_path / "results.json", [row])
    assert read_results(tmp_path / "results.json") == [row]
