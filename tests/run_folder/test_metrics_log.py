"""metrics.jsonl and results.json survive what a crash leaves."""

import errno
import json
from pathlib import Path

import pytest

from sslkit.errors import DataError
from sslkit.run_folder.metrics_log import StepRows, lines_until, read_metrics


def test_rows_are_appended_and_read_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    file = StepRows(path)
    file.write({"step": 1, "loss": 0.1 + 0.2})
    file.write({"step": 2, "loss": 1e-300})
    assert read_metrics(path) == [{"step": 1, "loss": 0.1 + 0.2}, {"step": 2, "loss": 1e-300}]


@pytest.mark.parametrize("cut", ["", '{"step": 7, "lo', '{"step": 7}', "{}", "[]", "7", '{"step": null}'])
def test_later_rows_and_rows_cut_short_are_dropped(tmp_path, cut):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 4, 6)) + cut)
    file = StepRows(path, after=4)
    file.write({"step": 5})
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 4, 5]


def test_a_row_without_its_line_end_stays_a_row(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    StepRows(path, after=2).write({"step": 3})
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]


class Little:
    """A file on a disk that has room for so many bytes more."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data[: self.room])

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 5])
def test_rows_without_room_wait_and_none_is_cut_short(tmp_path, monkeypatch, caplog, room):
    path, open_ = tmp_path / "metrics.jsonl", Path.open
    rows = StepRows(path)
    rows.write({"step": 1})
    monkeypatch.setattr(Path, "open", lambda *words, **others: Little(open_(*words, **others), room))
    rows.write({"step": 2})
    rows.write({"step": 3})
    with pytest.raises(OSError, match="No space left"):
        rows.sync()
    monkeypatch.undo()
    assert path.read_text() == '{"step": 1}\n'
    [warning] = caplog.records
    assert warning.message == f"{path} cannot be written ([Errno 28] No space left on device); its rows wait"
    rows.write({"step": 4})
    rows.sync()
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3, 4]


def test_rows_of_a_killed_run_can_be_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    assert lines_until(path, 1) == ['{"step": 1}']


def test_one_process_writes(tmp_path):
    rows = StepRows(tmp_path / "metrics.jsonl", writes=False)
    rows.write({"step": 1})
    rows.sync()
    assert not any(tmp_path.iterdir())


def test_what_is_not_finite_is_null(tmp_path):
    path = tmp_path / "rows.jsonl"
    StepRows(path).write({"step": 1, "loss": float("nan"), "other": -float("inf"), "keys": [1, 2], "name": "x"})
    assert read_metrics(path) == [{"step": 1, "loss": None, "other": None, "keys": [1, 2], "name": "x"}]


def test_a_file_that_is_no_text_is_a_sentence(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "epoch": 0.5, "loss": null}\n{"step": 2}\xff\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl cannot be read"):
        read_metrics(path)
