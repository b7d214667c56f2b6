"""The small frozen records that the wings hand each other.

Fixed vocabulary: a *document* is text; its tokens are the *trunk*; a *position* is one trunk token to be predicted
after thinking; a *rollout* is one sampled thought and answer there, grown as a *branch* of the trunk; the rollouts
of one position are its *group*.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` to ``stop`` of a text, and of what sort they are."""

    start: int
    stop: int
    sort: str


@dataclass(frozen=True, slots=True)
class Document:
    """Unlabelled text with a stable name.

    Attributes:
        id: unique in its corpus.
        text: what a model reads.
        spans: what a generated text knows about its words; for measuring only, no stage trains on it.
        cut: if long, only its first tokens are read; otherwise it gives several texts.
    """

    id: str
    text: str
    spans: tuple[Span, ...] = ()
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """One token of one trunk, to be predicted from the tokens before it.

    Attributes:
        trunk: which trunk of the step (0-based).
        index: the token's place in the trunk; at least 1, since something must stand before it.
        tier: 0 easy, 1 medium, 2 hard.
        entropy: of the next-token distribution there, nats.
    """

    trunk: int
    index: int
    tier: int
    entropy: float


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled thought and answer.

    Attributes:
        position: where.
        budget: B_t, tokens, as the opening stated it; 0 where none was stated.
        thought: token ids inside the tags, closing tag excluded.
        closed: True where the model chose to close, False where the environment closed at the cap.
        answer: token ids of the answer.
        logprobs: log-probability of every *sampled* token at sampling time, in order: thought, the closing
            decision if ``closed``, answer. What the environment wrote has none and takes no loss.
    """

    position: Position
    budget: int
    thought: tuple[int, ...]
    closed: bool
    answer: tuple[int, ...]
    logprobs: tuple[float, ...]

    @property
    def length(self) -> int:
        """Length of the thought, tokens."""
        return len(self.thought)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a policy answered at one held-out position, plainly and after thinking.

    Attributes:
        position: asked for; ``trunk`` counts the held-out texts.
        plain: 1 where the likeliest token is right, else 0.
        match: 1 where the answer after a thought is right, else 0.
        length: of that thought, tokens.
        closed: whether the thought closed itself.
        sort: of the token, where the text is a generated one.
        run: counts runs, where several are read together.
        rollout: the thought and answer themselves, where they are still known.
    """

    position: Position
    plain: float
    match: float
    length: int
    closed: bool
    sort: str = ""
    run: int = 0
    rollout: Rollout | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A rollout with its rewards; the advantage stands beside the reward and never replaces it."""

    rollout: Rollout
    match: float
    length_reward: float
    reward: float
    advantage: float


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One line of metrics.jsonl; the names are a contract with the report and the notebooks.

    ``forward_tokens`` and ``backward_tokens`` count what was read and what was trained on, trunks and branches, each as
    often as it was; ``trunk_tokens`` are those of the trunks among them, read and then trained on as often. ``skipped``
    is 1 where the update was not finite and left out. The last four fields are measured, so no two runs agree in them;
    ``trunk_seconds`` is the part of the two before it that the trunks took, with next-token loss and optimizer.
    """

    step: int
    budget: int
    tier_probabilities: tuple[float, float, float]
    tier_counts: tuple[int, int, int]
    match_reward: float
    length_reward: float
    reward: float
    thought_length: float
    closed_share: float
    signal_groups: float
    rl_loss: float
    ntp_loss: float
    grad_norm: float
    rl_tokens: int
    rl_tokens_by_tier: tuple[int, int, int]
    ntp_tokens: int
    forward_tokens: int
    backward_tokens: int
    trunk_tokens: int
    skipped: int
    rollout_seconds: float
    update_seconds: float
    trunk_seconds: float
    peak_memory_mb: float
