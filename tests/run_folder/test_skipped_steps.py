"""Skipped steps are read when rows are written, and known again after a crash."""

import json

import pytest
import torch

from sslkit.method.finite_guard import CHECKED
from sslkit.run_folder.skipped_steps import SkippedSteps

SOUND, ALL, LOSS, TEACHER, GRADIENTS = [0, 0, 0], [1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 1]


def take(skipped, first, *flags):
    for step, flaw in enumerate(flags, first):
        skipped.note(step, torch.tensor([10 * step, 10 * step + 1]), torch.tensor(flaw, dtype=torch.float32))
    skipped.read()


def steps(skipped):
    return [row["step"] for row in skipped.streak]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "skipped.jsonl"


def test_steps_are_read_together_and_written_with_their_images(path, caplog):
    skipped = SkippedSteps(path)
    take(skipped, 1, SOUND, SOUND)
    skipped.read()
    assert (skipped.count, skipped.streak, path.exists()) == (0, [], False)
    take(skipped, 3, LOSS, TEACHER)
    assert (skipped.count, steps(skipped)) == (2, [3, 4])
    take(skipped, 5, ALL, SOUND, GRADIENTS)
    assert (skipped.count, steps(skipped)) == (4, [7])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 3, "not_finite": ["loss", "gradients"], "keys": [30, 31]},
        {"step": 4, "not_finite": ["teacher's answers"], "keys": [40, 41]},
        {"step": 5, "not_finite": list(CHECKED), "keys": [50, 51]},
        {"step": 7, "not_finite": ["gradients"], "keys": [70, 71]},
    ]
    assert [record.message for record in caplog.records][:2] == [
        "step 3 moved nothing; not finite: loss, gradients",
        "step 4 moved nothing; not finite: teacher's answers",
    ]


def test_images_are_named_by_their_files_too(path):
    skipped = SkippedSteps(path, places=lambda keys: [f"a/{key}.png" for key in keys])
    take(skipped, 3, LOSS)
    [row] = map(json.loads, path.read_text().splitlines())
    assert (row["keys"], row["images"]) == ([30, 31], ["a/30.png", "a/31.png"])


def test_nothing_is_read_before_it_is_asked_for(path):
    class Unread(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            raise AssertionError(f"{func} waits")

    flags = torch.zeros(3).as_subclass(Unread)
    SkippedSteps(path).note(1, torch.tensor([1]), flags)


@pytest.mark.parametrize(
    ("flags", "said", "hint"),
    [
        ([LOSS, GRADIENTS], "loss, gradients", "Try optimization.clip_grad_norm, a longer warm-up, a lower"),
        ([LOSS, ALL], "loss, teacher's answers, gradients", "The teacher's weights are finite: look at the"),
        ([GRADIENTS, GRADIENTS], "gradients", "The loss is finite: try a lower optimization.lr"),
        ([[1, 0, 0]] * 2, "loss", "Try optimization.clip_grad_norm"),
    ],
)
def test_a_streak_says_what_is_not_finite_and_what_to_try(path, flags, said, hint):
    skipped = SkippedSteps(path)
    take(skipped, 5, *flags)
    assert str(skipped) == f"the last 2 steps, 5 to 6, moved nothing; not finite: {said}"
    assert skipped.hint("fp32").startswith(hint)
    assert skipped.hint("fp32").endswith("a lower optimization.lr.")
    assert skipped.hint("bf16").endswith("a lower optimization.lr or precision fp32.")


@pytest.mark.parametrize("after", range(2, 9))
def test_a_resumed_run_knows_what_the_first_one_knew(path, after):
    flags = [SOUND, ALL, ALL, SOUND, ALL, ALL, ALL, SOUND]
    first = SkippedSteps(path)
    for step, flaw in enumerate(flags, 1):
        take(first, step, flaw)
        if step == 6:
            first.roll_back(6, 1)
        if step == after:
            known = first.count, first.roll_backs, steps(first), first.rolled_back
    path.write_text(path.read_text() + '{"step": 9, "not_fi')
    again = SkippedSteps(path, after)
    assert (again.count, again.roll_backs, steps(again), again.rolled_back) == known
    assert all(json.loads(line)["step"] <= after for line in path.read_text().splitlines())


def test_another_process_counts_and_writes_nothing(path):
    skipped = SkippedSteps(path, writes=False)
    take(skipped, 1, ALL)
    assert (skipped.count, path.exists()) == (1, False)


def test_what_scaled_gradients_overflow_is_no_news_until_the_scale_explains_nothing(path):
    scale = [1024.0]
    skipped = SkippedSteps(path, scale=lambda: scale[0])
    take(skipped, 1, GRADIENTS, GRADIENTS)
    assert skipped.count == 0
    take(skipped, 3, LOSS, GRADIENTS)
    assert (skipped.count, steps(skipped)) == (1, [3])
    scale[0] = 0.5
    take(skipped, 5, GRADIENTS)
    assert (skipped.count, steps(skipped)) == (2, [3, 5])
