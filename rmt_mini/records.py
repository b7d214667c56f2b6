"""The small frozen records that the wings hand each other.

Fixed vocabulary: a *document* is text; its tokens are the *trunk*; a *position* is one trunk token to be predicted
after thinking; a *rollout* is one sampled thought and answer there, grown as a *branch* of the trunk; the rollouts
of one position are its *group*. A list of tokens is a tuple of ids; where no budget is stated, it is None.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` to ``stop`` of a text, and of what sort they are."""

    start: int
    stop: int
    sort: str


@dataclass(frozen=True, slots=True)
class Document:
    """Unlabelled text."""

    id: str  # unique in its corpus
    text: str
    spans: tuple[Span, ...] = ()  # what a generated text knows about its words; for measuring, no stage trains on it
    cut: bool = False  # if long, only its first tokens are read; otherwise it gives several texts
    keys: tuple[str, ...] = ()  # what no training text may share with a held-out one


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many held-out documents share something with training text."""

    shared: int
    documents: int
    what: str  # is shared

    @property
    def sentence(self) -> str:
        """Say it."""
        share = "shares" if self.shared == 1 else "share"
        return f"Of {self.documents} held-out texts {self.shared} {share} {self.what} with training text."


@dataclass(frozen=True, slots=True)
class Text:
    """A document, or a part of a long one, as a trunk."""

    id: str  # the document's, and which part of it this is
    ids: tuple[int, ...]
    first: int  # the first index that may be asked for
    sorts: tuple[str, ...] = ()  # of each token, where the text is a generated one; for measuring only
    asked: tuple[int, ...] | None = None  # the only indices that may be asked for; None: all known ones from ``first``
    unknown: tuple[int, ...] = ()  # indices from ``first`` on of tokens that the tokenizer does not know

    @property
    def places(self) -> Sequence[int]:
        """Indices that may be asked for."""
        if self.asked is not None:
            return self.asked
        every = range(self.first, len(self.ids))
        return [index for index in every if index not in self.unknown] if self.unknown else every


def whole_of(text: str) -> str:
    """Return the id of the document that a text is a part of, by the text's id; "" where it is all of one.

    Example:
        >>> whole_of("a book (3 of 13)"), whole_of("a page")
        ('a book', '')
    """
    found = re.fullmatch(r"(.+) \(\d+ of \d+\)", text)
    return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Position:
    """One token of a text, to be predicted from the tokens before it."""

    trunk: int  # the text's number in the list of texts that the position was drawn from
    index: int  # the token's place in that text; at least 1
    tier: int  # 0 easy, 1 medium, 2 hard
    entropy: float  # of the next-token distribution there, nats


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled thought and answer."""

    position: Position
    budget: int | None  # B_t, tokens, as the opening stated it; None where none was stated
    thought: tuple[int, ...]  # without the closing tag
    closed: bool  # True where the model chose to close, False where the environment closed at the cap
    answer: tuple[int, ...]
    logprobs: tuple[float, ...]  # of what was sampled, at sampling: thought, the closing if ``closed``, answer
    truth: float | None = field(default=None, compare=False)  # log-probability after the thought of the text's token

    @property
    def length(self) -> int:
        """Length of the thought, tokens."""
        return len(self.thought)


@dataclass(frozen=True, slots=True)
class Judged:
    """A rollout with its rewards; the advantage is kept beside the reward and never replaces it."""

    rollout: Rollout
    match: float
    length_reward: float
    reward: float
    advantage: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a policy answered at one held-out position, plainly and after thinking; means over its thoughts."""

    position: Position
    plain: float  # 1 where the likeliest token is right, else 0
    match: float  # share of thoughts after which the answer is right
    length: float  # of a thought, tokens
    closed: float  # share of thoughts that closed themselves
    sort: str = ""  # of the token, where the text is a generated one
    run: int = 0  # counts runs, where several are read together
    base: int = 0  # counts the models that those runs began with
    whole: str = ""  # of what document its text is one of several parts, which are not independent
    confidence: float = 0.0  # probability of the likeliest token, plainly
    bits: float = 0.0  # -log2 of the true token's probability, plainly
    bits_after: float | None = None  # the same after a thought
    gated: float | None = None  # right or not by whoever thinks only where unsure
    probe: Mapping[str, float] = field(default_factory=dict)  # right or not after its own thought, and after others
    rollout: Rollout | None = None  # the first thought and its answer; not read back from a file


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One line of metrics.jsonl; the names are a contract, and ``stages/metrics.py`` says what they count."""

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
    policy_entropy: float | None = None  # the last three are unknown in runs of older versions
    kl: float | None = None
    clip_share: float | None = None


@dataclass(frozen=True)
class State:
    """Training state in memory: all that the steps to come depend on, beside settings, texts and seed."""

    tensors: Mapping[str, "Tensor"]  # by name
    plain: Mapping[str, Any]  # everything else, as JSON keeps it; "step" counts the steps done
