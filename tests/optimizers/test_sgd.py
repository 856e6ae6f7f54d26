"""SGD is torch's, with weight decay added to the gradient."""

import pytest
import torch

from sslkit.optimizers.sgd import SGD


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_it_is_torchs(momentum):
    torch.manual_seed(0)
    shapes = [(3, 5), (7,), (2, 3, 1)]
    mine, theirs = ([torch.nn.Parameter(torch.randn(s, dtype=torch.float64)) for s in shapes] for _ in range(2))
    for one, other in zip(mine, theirs, strict=True):
        other.data = one.data.clone()
    ours = SGD(momentum).build([{"params": mine, "lr": 0.1, "weight_decay": 0.05}])
    torchs = torch.optim.SGD(theirs, lr=0.1, momentum=momentum, weight_decay=0.05)
    for _ in range(5):
        for one, other in zip(mine, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        ours.step()
        torchs.step()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_a_momentum_out_of_range_is_refused(momentum):
    with pytest.raises(ValueError, match="SGD"):
        SGD(momentum)
