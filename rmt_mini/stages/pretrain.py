r"""Pre-training: a small Llama, or a model that is there already, learns a micro-world's text by next-token prediction.

Now and then an author of a pre-training text thinks aloud before a word. Such an aside is laid out
exactly as the engine lays out a branch:

    ... Now it shows \n<think 24> 3 first 4 7 second 8 5</think>\n... second 8. Now it shows 5. The clerk ...
                     opening       thought               closing cue                        the word

An opening takes no loss: plain prediction would otherwise answer every hard question with an opening.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from rmt_mini.config import PretrainConfig
from rmt_mini.engine.logits import target_logprobs
from rmt_mini.engine.model import Policy, choose_device, load_policy, make_policy
from rmt_mini.engine.prompt import AnswerFormat, Continuation
from rmt_mini.errors import NonFiniteError
from rmt_mini.stages.optimizer import MasterAdamW, require_finite
from rmt_mini.worlds import micro

WINDOW = 16  # batches sorted by length together, so that little is padded
IGNORED = -100

Sequenced = tuple[list[int], list[int]]  # tokens, and each one's target: itself or IGNORED


def new_policy(config: PretrainConfig) -> Policy:
    """Load the model that is named, or make an untrained one, whose weights depend on the seed, and its tokenizer."""
    if config.model:
        return load_policy(config.model, config.device)
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = micro.make_tokenizer(micro.WORLDS[config.world])
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=1024,
        initializer_range=config.hidden_size**-0.5,  # 0.02 starts so flat that copying is learned late
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model: Any = LlamaForCausalLM(shape)
    model.to(choose_device(config.device))
    return make_policy(config.world, model, tokenizer)


class Reader:
    """Turns pages into tokens, asides included."""

    def __init__(self, form: AnswerFormat, seed: int, world: micro.World = micro.MICRO) -> None:
        self.form, self.seed, self.world = form, seed, world
        self._encode = lru_cache(maxsize=50_000)(
            lambda text: form.tokenizer(text, add_special_tokens=False)["input_ids"]
        )
        self._is_blank = lru_cache(maxsize=50_000)(lambda token: not form.tokenizer.decode([token]).strip())

    def _tokens(self, page: micro.Page) -> Iterator[tuple[int, micro.Piece]]:
        """Yield a page's tokens, and the piece of each; a blank that is a token of its own is grammar."""
        for piece in page.pieces:
            for token in self._encode(piece.text):
                yield token, micro.Piece(piece.text) if self._is_blank(token) else piece

    def read(self, page: micro.Page) -> Sequenced:
        """Return a page's tokens with its asides, and their targets."""
        source = random.Random(f"asides/{self.seed}/{page.id}")
        pieces = list(self._tokens(page))
        plain = [token for token, _ in pieces]
        thoughts = micro.asides([piece for _, piece in pieces], source, self.world)
        tokens: list[int] = []
        targets: list[int] = []
        for index, (token, piece) in enumerate(pieces):
            predicted = [token]
            if index in thoughts:
                opening = self.form.opening(micro.stated_budget(source))
                working = micro.fallible(piece.working, source, self.world)
                word = working.steps[-1][1] if working else self.form.tokenizer.decode([token])
                thought = micro.think(thoughts[index], word, working, self.world)
                predicted = [*self._encode(thought), *self.form.close, *self.form.cue(plain, index), token]
                tokens, targets = [*tokens, *opening], [*targets, *[IGNORED] * len(opening)]
            tokens += predicted
            targets += predicted
        end = self.form.tokenizer.eos_token_id
        return [*tokens, end], [*targets, end]

    def batches(self, size: int) -> Iterator[list[Sequenced]]:
        """Yield batches of pages of like length, without end."""
        pages = micro.stream(self.world.pretrain, self.seed)
        for number in range(10**9):
            window = sorted((self.read(next(pages)) for _ in range(size * WINDOW)), key=lambda one: len(one[0]))
            order = random.Random(f"order/{self.seed}/{number}").sample(range(WINDOW), WINDOW)
            yield from (window[place * size : (place + 1) * size] for place in order)


def pretrain(config: PretrainConfig, policy: Policy, on_step: Callable[[dict[str, float]], None] | None = None) -> None:
    """Train the policy of ``new_policy``, in place; after a NonFiniteError the weights are as before that step.

    ``on_step`` sees each step's number, loss (nats per token), learning rate, gradient norm and tokens.
    """
    model, device = policy.model, policy.device
    optimizer = MasterAdamW(model, config.learning_rate, config.weight_decay, 1.0)
    batches = Reader(Continuation(policy.tokenizer), config.seed, micro.WORLDS[config.world]).batches(
        config.documents_per_step
    )
    fast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")  # on a CPU it gains little here
    pad, kind = policy.tokenizer.pad_token_id, policy.dtype
    for step in range(config.steps):
        padded = _padded(next(batches), policy.tokenizer.eos_token_id if pad is None else pad)
        tokens, targets = (side.to(device) for side in padded)
        # it rises over the first steps, and falls as a cosine to a fiftieth
        falling = 0.02 + 0.98 * (1 + math.cos(math.pi * step / config.steps)) / 2
        rate = config.learning_rate * min(1.0, (step + 1) / config.rise) * falling
        optimizer.inner.param_groups[0]["lr"] = rate
        with fast:
            hidden = model.get_decoder()(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
        known, said = targets[:, 1:] != IGNORED, targets[:, 1:]
        loss = -target_logprobs(policy.head, hidden[known].to(kind), said[known]).mean()
        try:
            require_finite("the pre-training loss", loss)
            loss.backward()
            norm = optimizer.step()
        except NonFiniteError as error:
            raise NonFiniteError(f"step {step}: {error}; lower learning_rate ({config.learning_rate})") from error
        if on_step is not None:
            found = {"loss": float(loss.detach()), "learning_rate": rate, "grad_norm": norm}
            on_step({"step": step, **found, "tokens": int((targets != IGNORED).sum())})


def _padded(batch: Sequence[Sequenced], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad on the right, where causal attention never looks; returns tokens and targets (B, L)."""
    tokens, targets = (list(map(torch.tensor, side)) for side in zip(*batch, strict=True))
    return pad_sequence(tokens, True, pad), pad_sequence(targets, True, IGNORED)
