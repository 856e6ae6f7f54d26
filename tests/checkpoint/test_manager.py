"""What a run saves and takes up again, with the rows that come first and what a streak of skipped steps keeps."""

import errno
import logging
import os
from types import SimpleNamespace

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
from sslkit.run_folder.skipped_steps import SkippedSteps
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


@pytest.fixture
def skipped(tmp_path):
    return SkippedSteps(tmp_path / "skipped.jsonl")


def skip(skipped, *steps):
    for step in steps:
        skipped.note(step, torch.tensor([step]), torch.ones(3))
    skipped.read()


def names(checkpoint_manager):
    return [int(path.name[5:]) for path in sorted(checkpoint_manager.folder.checkpoints.iterdir())]


def mark(checkpoint_manager, number):
    with torch.no_grad():
        checkpoint_manager.model.collapse.center.fill_(number)


def test_rows_come_before_the_checkpoint_and_both_backbones_after(checkpoint_manager, skipped, monkeypatch):
    said = []
    monkeypatch.setattr("sslkit.checkpoint.manager.save_checkpoint", lambda folder, *words: said.append("checkpoint"))
    monkeypatch.setattr(RunFolder, "save_backbones", lambda folder, backbones: said.append(sorted(backbones)))
    checkpoint_manager.save(3, [Waiting(said)] * 2, skipped)
    assert said == ["rows", "rows", "checkpoint", ["student", "teacher"]]


def test_what_was_saved_is_taken_up(checkpoint_manager, skipped):
    assert checkpoint_manager.load() is None
    for step in (3, 6, 8):
        mark(checkpoint_manager, step)
        path = checkpoint_manager.save(step, [], skipped)
        assert (path.name, checkpoint_manager.step) == (f"step-{step:09d}", step)
    assert names(checkpoint_manager) == [6, 8]
    assert (checkpoint_manager.load(), checkpoint_manager.model.collapse.center[0]) == (8, 8)
    assert (checkpoint_manager.load(before=8), checkpoint_manager.model.collapse.center[0]) == (6, 6)
    assert {path.name for path in checkpoint_manager.folder.path.iterdir()} == {"checkpoints", "teacher", "student"}


def test_without_room_for_rows_nothing_is_saved_until_there_is_some(checkpoint_manager, skipped, caplog):
    rows = Waiting([], failures=1)
    with caplog.at_level(logging.WARNING, "sslkit"):
        assert checkpoint_manager.save(3, [rows], skipped) is None
    assert [record.message for record in caplog.records] == [
        "step 3 is not saved: [Errno 28] No space left on device. The checkpoints before it stay"
    ]
    assert not checkpoint_manager.folder.checkpoints.exists()
    with pytest.raises(RunError, match=r"step 3 could not be saved: \[Errno 28\].* --resume goes on from there"):
        checkpoint_manager.check(3)
    assert checkpoint_manager.save(6, [rows], skipped)
    checkpoint_manager.check(6)


def test_during_a_streak_what_was_saved_before_it_stays(checkpoint_manager, skipped):
    for step in (2, 4):
        checkpoint_manager.save(step, [], skipped)
    assert checkpoint_manager.has_news(skipped)
    skip(skipped, 6)
    # Step 5 moved something.
    assert checkpoint_manager.has_news(skipped)
    checkpoint_manager.save(6, [], skipped)
    assert names(checkpoint_manager) == [2, 4, 6]
    skip(skipped, 7, 8)
    assert not checkpoint_manager.has_news(skipped)
    skipped.note(9, torch.tensor([9]), torch.zeros(3))
    skipped.read()
    assert checkpoint_manager.has_news(skipped)


def test_going_back_takes_what_is_older_than_the_streak(checkpoint_manager, skipped):
    for step in (3, 5, 6):
        mark(checkpoint_manager, step)
        checkpoint_manager.save(step, [], SimpleNamespace(streak=[1]))
    skip(skipped, 6, 7)
    # What was saved after the very step before the streak is what is there already.
    assert checkpoint_manager.go_back(skipped, 7, 1, "fp32") == (
        "the last 2 steps, 6 to 7, moved nothing; not finite: loss, teacher's answers, gradients; "
        "going on from the networks of step 3, without these images"
    )
    assert checkpoint_manager.model.collapse.center[0] == 3
    assert (skipped.streak, skipped.roll_backs) == ([], 1)
    skip(skipped, 8)
    with pytest.raises(RunError, match=r"steps, 8 to 8, .* --resume --runtime\.roll_backs 2 goes on from one"):
        checkpoint_manager.go_back(skipped, 8, 1, "fp32")


@pytest.mark.parametrize(("saved", "found"), [([], 2), ([8], 8)])
def test_going_back_again_takes_what_did_not_lead_to_a_streak_before(checkpoint_manager, skipped, saved, found):
    for step in (2, 4, 6, *saved):
        checkpoint_manager.save(step, [], SimpleNamespace(streak=[1, 2]))
    skip(skipped, 6, 7)
    assert "networks of step 4," in checkpoint_manager.go_back(skipped, 7, 2, "fp32")
    skip(skipped, 10)
    assert f"networks of step {found}," in checkpoint_manager.go_back(skipped, 10, 2, "fp32")


def test_another_process_writes_nothing(checkpoint_manager, skipped, monkeypatch):
    monkeypatch.setattr("sslkit.checkpoint.manager.rank", lambda: 1)
    assert checkpoint_manager.save(3, [Waiting([])], skipped) is None
    assert not checkpoint_manager.folder.checkpoints.exists()
    checkpoint_manager.check(3)
