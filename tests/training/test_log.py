"""metrics.jsonl and results.json survive what a crash leaves."""

import json

import pytest
import torch

from sslkit.training.log import (
    MetricsFile,
    append_results,
    as_numbers,
    drop_results,
    read_metrics,
    read_results,
    write_text,
)


def test_rows_are_appended_and_read_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    file = MetricsFile(path)
    file.write({"step": 1, "loss": 0.1 + 0.2})
    file.write({"step": 2, "loss": 1e-300})
    assert read_metrics(path) == [{"step": 1, "loss": 0.1 + 0.2}, {"step": 2, "loss": 1e-300}]


@pytest.mark.parametrize("cut", ["", '{"step": 7, "lo', '{"step": 7}', "{}", "[]", "7", '{"step": null}'])
def test_later_rows_and_rows_cut_short_are_dropped(tmp_path, cut):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 4, 6)) + cut)
    file = MetricsFile(path, after=4)
    file.write({"step": 5})
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 4, 5]


def test_a_row_without_its_line_end_stays_a_row(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    MetricsFile(path, after=2).write({"step": 3})
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]


def test_numbers_are_plain():
    assert as_numbers({"a": torch.tensor([0.5]), "b": 2, "c": torch.tensor(3)}) == {"a": 0.5, "b": 2.0, "c": 3.0}


def test_results_are_appended_and_later_ones_dropped(tmp_path):
    path = tmp_path / "results.json"
    assert read_results(path) == []
    drop_results(path, since=0)
    assert not path.exists()
    append_results(path, [{"step": 0}, {"step": None}])
    append_results(path, [{"step": 4}, {"step": 8}])
    drop_results(path, since=4)
    assert read_results(path) == [{"step": 0}, {"step": None}]


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    write_text(path, "first")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "second \udcff")
    assert path.read_text() == "first"
    write_text(path, "third")
    assert path.read_text() == "third"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
