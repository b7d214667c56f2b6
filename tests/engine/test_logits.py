import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from rmt_mini.engine import logits as logits_room
from rmt_mini.engine.logits import sample, target_logprobs

VOCABULARY = 7


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make_head(dtype: torch.dtype = torch.float64, bias: bool = False) -> nn.Linear:
    head = nn.Linear(3, VOCABULARY, bias=bias, dtype=dtype)
    with torch.no_grad():
        head.weight.copy_(draw(VOCABULARY, 3, seed=1, dtype=dtype))
        if bias:
            head.bias.copy_(draw(VOCABULARY, seed=4, dtype=dtype))
    return head


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 11])  # less than a chunk, whole chunks, a rest
@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_those_of_log_softmax(
    count: int, temperature: float, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logits_room, "CHUNK", 4)
    head, hidden = make_head(bias=bias), draw(count, 3, seed=2).requires_grad_()
    targets = torch.arange(count) * 5 % VOCABULARY
    ours = target_logprobs(head, hidden, targets, temperature)
    theirs = torch.log_softmax(head(hidden) / temperature, -1)[torch.arange(count), targets]
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)

    weights = draw(count, seed=3)
    leaves = (hidden, *head.parameters())
    for one, other in zip(
        torch.autograd.grad((ours * weights).sum(), leaves),
        torch.autograd.grad((theirs * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_gives_fp32_logprobs(dtype: torch.dtype) -> None:
    head, hidden = make_head(dtype), draw(5, 3, dtype=dtype).requires_grad_()
    targets = torch.tensor([0, 1, 2, 3, 4])
    ours = target_logprobs(head, hidden, targets, 0.7)
    exact = torch.log_softmax((hidden.double() @ head.weight.double().t()) / 0.7, -1)[range(5), targets]
    assert ours.dtype == torch.float32
    size = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(ours.double(), exact, rtol=size, atol=size)
    ours.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == dtype


# --- Sampling ----------------------------------------------------------------------------------------------------


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(rows: int, seed: int = 0) -> Tensor:
    return torch.rand(rows, generator=generator(seed))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_frequencies_are_those_of_the_softmax(temperature: float) -> None:
    logits = torch.tensor([1.0, -torch.inf, 0.0, 2.0, -1.0, -torch.inf, 1.5, -torch.inf])
    count = 20_000
    tokens, logprobs = sample(logits.expand(count, -1), temperature, uniform(count))
    expected = torch.softmax(logits.double() / temperature, -1)
    seen = torch.bincount(tokens, minlength=len(logits))
    possible = expected > 0
    assert seen[~possible].sum() == 0
    assert chisquare(seen[possible], expected[possible] * count).pvalue > 0.001
    torch.testing.assert_close(logprobs, expected.log()[tokens].float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2**-24])
def test_the_ends_of_the_uniform_draw_hit_no_impossible_token(number: float) -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    tokens, _ = sample(logits, 1.0, torch.tensor([number]))
    assert tokens.item() == {0.0: 1, 0.5: 3, 1 - 2**-24: 3}[number]
    # a large vocabulary, whose cumulative sum ends off 1 by rounding
    wide = torch.randn(1, 50_000, generator=generator(1))
    wide[:, -100:] = -torch.inf
    tokens, logprobs = sample(wide, 1.0, torch.tensor([number]))
    assert tokens.item() < 49_900
    assert torch.isfinite(logprobs).all()


def test_what_is_not_a_number_draws_a_token_that_exists_and_shows_in_its_probability() -> None:
    tokens, logprobs = sample(torch.full((2, 300), torch.nan), 1.0, torch.tensor([0.0, 0.9]))
    assert all(token < 300 for token in tokens.tolist())
    assert logprobs.isnan().all()


def test_temperature_0_takes_the_likeliest_and_reports_the_plain_probability() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, -1.0, 2.9]])
    tokens, logprobs = sample(logits, 0, torch.tensor([0.0, 0.99]))
    assert tokens.tolist() == [1, 0]
    torch.testing.assert_close(logprobs, torch.log_softmax(logits, -1)[[0, 1], tokens])
