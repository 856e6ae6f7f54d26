"""Where a run starts, and what of its folder it drops."""

import json

import pytest
import torch

from sslkit.checkpoint.manager import CheckpointManager
from sslkit.collapse import Centering
from sslkit.data import Textures
from sslkit.losses import CrossEntropy
from sslkit.method.executor import Executor
from sslkit.method.student_teacher import StudentTeacher
from sslkit.run_folder.folder import Record, RunFolder
from sslkit.run_folder.metrics_log import read_metrics
from sslkit.run_folder.results import append_results, read_results
from sslkit.run_folder.trackers import Trackers
from sslkit.teachers import EMA
from sslkit.training.resume_policy import ResumePolicy
from sslkit.types import Preprocessing

PREPROCESSING = Preprocessing(3, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def start(tiny, tmp_path, monkeypatch):
    """Return a function that starts a run in the same folder, and the model and manager that it loads into."""
    monkeypatch.setattr(RunFolder, "save_backbones", lambda folder, backbones: None)

    def start(resume=True):
        torch.manual_seed(0)
        student = tiny.branch(dtype=torch.float32)
        model = StudentTeacher(student, teacher_update=EMA(), collapse=Centering(11), loss=CrossEntropy())
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        folder = RunFolder(tmp_path / "run")
        manager = CheckpointManager(folder, model, optimizer, Executor(), "me", keep=2)
        record = Record(name="tiny", recipe="seed: 0\n", identity="me", plugins=[], device="cpu", precision="fp32")
        trackers = Trackers([], "tiny", folder.path)
        return manager, ResumePolicy(folder, record, PREPROCESSING, manager, trackers, Textures(8, 8)).start(resume)

    return start


def test_a_new_run_starts_at_its_first_step(start):
    manager, resumed = start(resume=False)
    assert (resumed.step, manager.step) == (0, 0)
    assert json.loads((manager.folder.path / "data.json").read_text())["channels"] == 3
    assert (resumed.skipped.count, resumed.skipped.streak) == (0, [])


def test_a_resumed_run_loads_the_newest_checkpoint_and_drops_what_came_after_it(start):
    manager, resumed = start(resume=False)
    for step in range(1, 8):
        resumed.rows.write({"step": step, "loss": 1.0})
        resumed.skipped.note(step, torch.tensor([step]), torch.full((3,), float(step in (3, 7))))
        resumed.skipped.read()
        append_results(manager.folder.results, [{"step": step, "network": "teacher", "metrics": {}}])
        if step in (2, 5):
            with torch.no_grad():
                manager.model.collapse.center.fill_(step)
            manager.save(step, [resumed.rows, resumed.skipped.rows])

    other, resumed = start()
    assert (resumed.step, other.model.collapse.center[0]) == (5, 5)
    assert [row["step"] for row in read_metrics(other.folder.metrics)] == [1, 2, 3, 4, 5]
    # The evaluation at the checkpoint is done again.
    assert [row["step"] for row in read_results(other.folder.results)] == [1, 2, 3, 4]
    assert resumed.skipped.count == 1
