"""What a run saves and takes up again, with the rows that come first."""

import errno
import logging
import os

import pytest
import torch

from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.checkpoint.manager import CheckpointManager
from sslkit.collapse import Centering
from sslkit.errors import RunError
from sslkit.heads.dino_head import DINOHead
from sslkit.losses import CrossEntropy
from sslkit.method.branch import Branch
from sslkit.method.executor import Executor
from sslkit.method.student_teacher import StudentTeacher
from sslkit.run_folder.folder import RunFolder
from sslkit.teachers import EMA


class Waiting:
    """Rows that find no room so many times, and say when they came."""

    def __init__(self, said, failures=0):
        self.said, self.failures = said, failures

    def sync(self):
        if self.failures:
            self.failures -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.said.append("rows")


@pytest.fixture
def checkpoint_manager(tmp_path):
    args = {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 8], "stem_type": "deep", "stem_width": 4}
    backbone = TimmBackbone("resnet18", small_image_stem=True, model_args=args)
    student = Branch(backbone, DINOHead(8, num_prototypes=5, hidden_dim=4, embed_dim=3, num_layers=2))
    model = StudentTeacher(student, teacher_update=EMA(0.9), collapse=Centering(5), loss=CrossEntropy())
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    return CheckpointManager(RunFolder(tmp_path), model, optimizer, Executor(), "me", keep=2)


def names(checkpoint_manager):
    return [int(path.name[5:]) for path in sorted(checkpoint_manager.folder.checkpoints.iterdir())]


def mark(checkpoint_manager, number):
    with torch.no_grad():
        checkpoint_manager.model.collapse.center.fill_(number)


def test_rows_come_before_the_checkpoint_and_both_backbones_after(checkpoint_manager, monkeypatch):
    said = []
    monkeypatch.setattr("sslkit.checkpoint.manager.save_checkpoint", lambda folder, *words: said.append("checkpoint"))
    monkeypatch.setattr(RunFolder, "save_backbones", lambda folder, backbones: said.append(sorted(backbones)))
    checkpoint_manager.save(3, [Waiting(said)] * 2)
    assert said == ["rows", "rows", "checkpoint", ["student", "teacher"]]


def test_what_was_saved_is_taken_up(checkpoint_manager):
    assert checkpoint_manager.load() is None
    for step in (3, 6, 8):
        mark(checkpoint_manager, step)
        path = checkpoint_manager.save(step, [])
        assert (path.name, checkpoint_manager.step) == (f"step-{step:09d}", step)
    assert names(checkpoint_manager) == [6, 8]
    assert (checkpoint_manager.load(), checkpoint_manager.model.collapse.center[0]) == (8, 8)
    assert (checkpoint_manager.load(before=8), checkpoint_manager.model.collapse.center[0]) == (6, 6)
    assert {path.name for path in checkpoint_manager.folder.path.iterdir()} == {"checkpoints", "teacher", "student"}


def test_without_room_for_rows_nothing_is_saved_until_there_is_some(checkpoint_manager, caplog):
    rows = Waiting([], failures=1)
    with caplog.at_level(logging.WARNING, "sslkit"):
        assert checkpoint_manager.save(3, [rows]) is None
    assert [record.message for record in caplog.records] == [
        "step 3 is not saved: [Errno 28] No space left on device. The checkpoints before it stay"
    ]
    assert not checkpoint_manager.folder.checkpoints.exists()
    with pytest.raises(RunError, match=r"step 3 could not be saved: \[Errno 28\].* --resume goes on from there"):
        checkpoint_manager.check(3)
    assert checkpoint_manager.save(6, [rows])
    checkpoint_manager.check(6)


def test_extra_checkpoints_stay_beyond_the_usual_number(checkpoint_manager):
    for step in (2, 4, 6, 8):
        checkpoint_manager.save(step, [], extra=int(step > 4))
    assert names(checkpoint_manager) == [4, 6, 8]


def test_another_process_writes_nothing(checkpoint_manager, monkeypatch):
    monkeypatch.setattr("sslkit.checkpoint.manager.rank", lambda: 1)
    assert checkpoint_manager.save(3, [Waiting([])]) is None
    assert not checkpoint_manager.folder.checkpoints.exists()
    checkpoint_manager.check(3)
