import multiprocessing
import sys

import pytest
import torch
import torch.distributed as dist

from sslkit import distributed
from sslkit.collapse import Centering
from sslkit.collapse.sinkhorn_knopp import balance
from sslkit.types import Projection


def teacher(logits):
    return Projection(logits, logits, logits, logits, (0, 1))


def test_alone_everything_is_the_identity():
    tensor = torch.randn(3)
    assert (distributed.world_size(), distributed.rank()) == (1, 0)
    for function in (
        distributed.sum_over_processes,
        distributed.max_over_processes,
        distributed.mean_over_processes,
        distributed.gather_over_processes,
    ):
        assert torch.equal(function(tensor), tensor)


def _work(rank, rendezvous, results):
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    mine = torch.arange(6.0).view(2, 3) * (rank + 1)
    logits = torch.randn(2, 10, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shard = logits[:, rank * 5 : rank * 5 + 5]
    centering = Centering(7)
    centering.update(teacher(shard))
    answers = {
        "rank": (distributed.rank(), distributed.world_size()),
        "sum": distributed.sum_over_processes(mine),
        "max": distributed.max_over_processes(mine - 2 * rank),
        "mean": distributed.mean_over_processes(mine),
        "gather": distributed.gather_over_processes(mine, dim=1),
        "untouched": mine,
        "center": centering.center,
        "balanced": balance(shard, 0.05, 3),
    }
    results.put((rank, {name: getattr(value, "tolist", lambda v=value: v)() for name, value in answers.items()}))
    dist.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="forks, so that two processes need not import torch again")
def test_two_processes_answer_as_one(tmp_path):
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    workers = [fork.Process(target=_work, args=(rank, tmp_path / "meet", results), daemon=True) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    by_rank = dict(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(timeout=60)

    first = torch.arange(6.0).view(2, 3)
    logits = torch.randn(2, 10, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alone = Centering(7)
    alone.update(teacher(logits))
    whole = balance(logits, 0.05, 3)
    for rank, answers in by_rank.items():
        assert answers["rank"] == (rank, 2)
        assert answers["sum"] == (3 * first).tolist()
        assert answers["max"] == torch.maximum(first, 2 * first - 2).tolist()
        assert answers["mean"] == (1.5 * first).tolist()
        assert answers["gather"] == torch.cat([first, 2 * first], 1).tolist()
        assert answers["untouched"] == (first * (rank + 1)).tolist()
        torch.testing.assert_close(
            torch.tensor(answers["center"], dtype=torch.float64), alone.center, rtol=1e-13, atol=0
        )
        mine = torch.tensor(answers["balanced"], dtype=torch.float64)
        torch.testing.assert_close(mine, whole[:, rank * 5 : rank * 5 + 5], rtol=1e-12, atol=0)
