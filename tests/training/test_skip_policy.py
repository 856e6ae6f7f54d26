"""What a run does after steps that moved nothing: go on, roll back, or end."""

import pytest
import torch

from sslkit.errors import RunError
from sslkit.run_folder.folder import RunFolder
from sslkit.run_folder.skipped_steps import SkippedSteps
from sslkit.training.skip_policy import SkipPolicy


class Checkpoints:
    """The steps of checkpoints, and which were loaded."""

    def __init__(self, path, *steps):
        self.folder, self.steps, self.loaded = RunFolder(path), list(steps), []

    @property
    def step(self):
        return max(self.steps, default=0)

    def load(self, before):
        found = max((step for step in self.steps if step < before), default=None)
        self.loaded.append(found)
        return found


@pytest.fixture
def policy(tmp_path):
    def policy(*steps, limit=1, roll_backs=0, precision="fp32"):
        skipped = SkippedSteps(tmp_path / "skipped.jsonl")
        return SkipPolicy(skipped, Checkpoints(tmp_path, *steps), limit, roll_backs, precision)

    return policy


def skip(policy, *steps, flag=1):
    for step in steps:
        policy.skipped.note(step, torch.tensor([step]), torch.full((3,), float(flag)))
    policy.skipped.read()


def test_during_a_streak_what_was_saved_before_it_stays(policy):
    policy = policy(2, 4)
    assert (policy.has_news(), policy.extra_checkpoints) == (True, 0)
    skip(policy, 6)
    # Step 5 moved something.
    assert (policy.has_news(), policy.extra_checkpoints) == (True, 1)
    policy.checkpoints.steps.append(6)
    skip(policy, 7, 8)
    assert (policy.has_news(), policy.extra_checkpoints) == (False, 1)
    skip(policy, 9, flag=0)
    assert (policy.has_news(), policy.extra_checkpoints) == (True, 0)


def test_a_run_goes_on_until_as_many_steps_in_a_row_as_the_limit(policy):
    policy = policy(1, limit=3, roll_backs=1)
    skip(policy, 3, 4)
    assert policy.apply(4) is None
    skip(policy, 5, flag=0)
    skip(policy, 6, 7)
    assert policy.apply(7) is None
    skip(policy, 8)
    assert policy.apply(8).startswith("the last 3 steps, 6 to 8, moved nothing")


def test_a_roll_back_loads_what_is_older_than_the_streak(policy):
    policy = policy(3, 5, 6, limit=2, roll_backs=1)
    skip(policy, 6, 7)
    # What was saved after the very step before the streak is what is there already.
    assert policy.apply(7) == (
        "the last 2 steps, 6 to 7, moved nothing; not finite: loss, teacher's answers, gradients; "
        "going on from the networks of step 3, without these images"
    )
    assert policy.checkpoints.loaded == [3]
    assert (policy.skipped.streak, policy.skipped.roll_backs) == ([], 1)
    skip(policy, 8, 9)
    with pytest.raises(RunError, match=r"steps, 8 to 9, .* --resume --runtime\.roll_backs 2 goes on from one"):
        policy.apply(9)
    assert policy.checkpoints.loaded == [3]


@pytest.mark.parametrize(("saved", "found"), [([], 2), ([8], 8)])
def test_a_second_roll_back_loads_what_did_not_lead_to_a_streak_before(policy, saved, found):
    policy = policy(2, 4, 6, *saved, roll_backs=2)
    skip(policy, 6, 7)
    assert "networks of step 4," in policy.apply(7)
    skip(policy, 10)
    assert f"networks of step {found}," in policy.apply(10)


@pytest.mark.parametrize(("precision", "hint"), [("bf16", "or precision fp32"), ("fp32", "lower optimization.lr.")])
def test_without_an_older_checkpoint_the_run_ends_with_what_to_try(policy, precision, hint):
    policy = policy(roll_backs=5, precision=precision)
    skip(policy, 1)
    with pytest.raises(RunError, match=hint):
        policy.apply(1)
