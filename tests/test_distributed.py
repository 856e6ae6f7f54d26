import pytest
import torch

from sslkit import distributed


def test_alone_everything_is_the_identity():
    tensor = torch.randn(3)
    assert (distributed.world_size(), distributed.rank()) == (1, 0)
    for function in (
        distributed.sum_over_processes,
        distributed.max_over_processes,
        distributed.mean_over_processes,
        distributed.gather_over_processes,
        distributed.from_main,
    ):
        assert torch.equal(function(tensor), tensor)


def test_two_processes_answer_as_one(pair):
    first = torch.arange(6.0).view(2, 3)
    alone = pair.cases.exchanged()
    for rank, answers in enumerate(pair.answers("exchanged")):
        assert answers["rank"] == (rank, 2)
        assert answers["from main"] == {"rank": 0}
        assert torch.equal(answers["sum"], 3 * first)
        assert torch.equal(answers["max"], torch.maximum(first, 2 * first - 2))
        assert torch.equal(answers["mean"], 1.5 * first)
        assert torch.equal(answers["gather"], torch.cat([first, 2 * first], 1))
        assert torch.equal(answers["untouched"], first * (rank + 1))
        torch.testing.assert_close(answers["center"], alone["center"], rtol=1e-13, atol=0)
        mine = alone["balanced"][:, rank * 5 : rank * 5 + 5]
        torch.testing.assert_close(answers["balanced"], mine, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, None),
        ({"MASTER_PORT": "29500"}, None),
        ({"ACCELERATE_MIXED_PRECISION": "no"}, None),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500"}, "accelerate launch was asked for several"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "srun started 4 processes that do not train together"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "mpirun started 2 processes"),
    ],
)
def test_a_process_that_should_not_be_alone_says_so(environment, reason):
    said = distributed.why_alone(environment)
    assert said is None if reason is None else said.startswith(reason)
