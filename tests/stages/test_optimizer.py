import pytest
import torch
from torch import nn

from rmt_mini.stages.optimizer import MasterAdamW, NonFiniteError


def layer(dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(3, 2).to(dtype)


def feed(model: nn.Linear, step: int, size: float = 1.0) -> None:
    torch.manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = size * torch.randn_like(parameter)


def test_in_float32_it_is_adamw_of_torch_with_clipping() -> None:
    ours, theirs = layer(), layer()
    optimizer = MasterAdamW(ours, 0.05, 0.1, max_grad_norm=0.5)
    plain = torch.optim.AdamW(theirs.parameters(), lr=0.05, betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(5):
        size = 0.01 if step == 2 else 1.0  # once below the limit
        feed(ours, step, size)
        feed(theirs, step, size)
        norm = nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        plain.step()
        assert optimizer.step() == pytest.approx(float(norm))
        assert all(parameter.grad is None for parameter in ours.parameters())
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other)


def test_bfloat16_weights_gather_updates_that_they_alone_would_lose() -> None:
    model = nn.ParameterList([torch.ones(4, dtype=torch.bfloat16)])
    bare = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = MasterAdamW(model, 1e-4, 0.0, 1e9)
    plain = torch.optim.AdamW([bare], lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(200):
        model[0].grad, bare.grad = torch.ones_like(bare), torch.ones_like(bare)
        optimizer.step()
        plain.step()
    assert model[0].dtype == torch.bfloat16
    assert model[0].tolist() == pytest.approx([0.98] * 4, abs=0.004)  # 200 steps of 1e-4; bf16 step 2^-8
    assert bare.tolist() == [1.0] * 4  # each update rounds away


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_gradient_that_is_not_finite_is_named_and_nothing_moves(dtype: torch.dtype, value: float) -> None:
    model = layer(dtype)
    optimizer = MasterAdamW(model, 0.1, 0.0, 1.0)
    feed(model, 0)
    optimizer.step()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    moments = [s["exp_avg"].clone() for s in optimizer.inner.state_dict()["state"].values()]
    feed(model, 1)
    assert model.bias.grad is not None
    model.bias.grad[1] = value
    with pytest.raises(NonFiniteError, match=r"^the gradient of bias is not finite$"):  # not weight, the first
        optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    after = [s["exp_avg"] for s in optimizer.inner.state_dict()["state"].values()]
    assert all(torch.equal(one, other) for one, other in zip(moments, after, strict=True))


def test_frozen_and_unused_parameters_stay() -> None:
    model = layer()
    model.bias.requires_grad_(False)
    before = model.bias.clone(), model.weight.detach().clone()
    optimizer = MasterAdamW(model, 0.1, 0.5, 1.0)
    assert optimizer.step() == 0.0  # no gradient at all
    assert torch.equal(model.weight, before[1])
    model.weight.grad = torch.ones_like(model.weight)
    optimizer.step()
    assert torch.equal(model.bias, before[0])
    assert not torch.equal(model.weight, before[1])
