"""Two processes with half a batch each take the step of one process with the whole batch."""

import subprocess
from pathlib import Path

import pytest
import torch

OPERATORS = (
    "centering",
    "centering, accumulated",
    "sinkhorn",
    "sinkhorn with a queue",
    "batch softmax",
    "negative queue",
    "negatives of queue and batch",
)


def assert_equal(state, expected):
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("operator", OPERATORS)
def test_two_processes_are_one(pair, operator):
    rule, accumulation = pair.cases.STEPPED[operator]
    alone = pair.cases.stepped(operator, rule, accumulation)
    for state in pair.answers(operator):
        assert_equal(state, alone)


@pytest.mark.parametrize(("case", "flawed"), [("sharded", False), ("flawed and sharded", True)])
def test_an_executor_that_shards_both_networks_takes_the_same_steps(pair, case, flawed):
    """Nothing but the executor knows it."""
    alone = pair.cases.stepped("one-hot" if flawed else "centering", flawed=flawed)
    for state in pair.answers(case):
        assert state["flags"].tolist() == [[0, 0, 0], [0, int(flawed), 0], [0, 0, 0]]
        assert_equal(state, alone)


def test_every_operator_is_tried(pair):
    assert {*pair.cases.STEPPED} == {*OPERATORS}


def test_what_is_not_finite_in_one_process_holds_up_all(pair):
    alone, sound = pair.cases.stepped("one-hot", flawed=True), pair.cases.stepped("one-hot")
    assert not torch.equal(alone["collapse.center"], sound["collapse.center"])
    for state in pair.answers("flawed"):
        assert state["flags"].tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
        assert_equal(state, alone)


def test_each_process_keeps_its_own_batch_statistics(pair):
    for rank, state in enumerate(pair.answers("own statistics")):
        alone = pair.cases.stepped("centering", batch_norm=True, lr=0.0, share=rank)
        buffers = [name for name in alone if ".1.running_" in name]
        assert len(buffers) == 4
        assert_equal({name: state[name] for name in buffers}, {name: alone[name] for name in buffers})


def test_the_batch_script_is_one_that_slurm_reads():
    script = Path(__file__).parents[2] / "docs/slurm.sbatch"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    lines = script.read_text().splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    settings = [i for i, line in enumerate(lines) if line.startswith("#SBATCH ")]
    # SLURM reads none behind a command.
    assert settings
    assert max(settings) < first_command
