"""Documents as trunks: tokenized, cut, and drawn in an order that the seed fixes, whatever model reads them.

A token that the tokenizer does not know (``<unk>``) is not what the text says. Such positions are never asked, and the
next-token loss leaves them out as well, since it would teach the model to write ``<unk>``; they stay in the trunk as
context.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from rmt_mini.config import RMTConfig
from rmt_mini.engine.prompt import TAIL_TOKENS, AnswerFormat, answer_format, encode_text
from rmt_mini.errors import UserError, logger
from rmt_mini.method.budget import thought_cap
from rmt_mini.records import Document, Text

if TYPE_CHECKING:
    from rmt_mini.engine.model import Policy  # the trainer on TRL reads texts without it


QUANTILE_TEXTS = 64  # from which tier_rule "quantile" takes its thresholds
MOST_UNKNOWN = 0.1  # share of a text's tokens; beyond it the model does not read the text's script
RARE_LETTERS = ("\N{UGARITIC LETTER ALPA}", "\N{CUNEIFORM SIGN A TIMES A}")  # whose UTF-8 ends in different bytes


def generator_for(seed: int, *purpose: object) -> torch.Generator:
    """Return a CPU generator that depends on the seed and the purpose alone, so that a resumed run draws alike."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def endless(texts: Sequence[Text], seed: int, start: int = 0) -> Iterator[Text]:
    """Yield texts in a new random order every epoch, from the ``start``-th on."""
    epoch, place = divmod(start, len(texts))
    while True:
        order = torch.randperm(len(texts), generator=generator_for(seed, "order", epoch)).tolist()
        yield from (texts[index] for index in order[place:])
        epoch, place = epoch + 1, 0


def format_for(policy: "Policy", config: RMTConfig, budget: int | None = None) -> AnswerFormat:
    """Return the answer format of the configuration, for its budgets and another ``budget`` that is stated, if any."""
    form = answer_format(config.answer_format, policy.tokenizer, policy.parameters, config.prefix_match)
    config.replace(answer_format=form.name)  # refuses settings that do not fit the format that "auto" has chosen
    require_room(policy.name, getattr(policy.model, "config", None), form, config, budget)
    return form


def longest_branch(form: AnswerFormat, config: RMTConfig, budget: int | None = None, trunk: int = 0) -> int:
    """Return how many tokens a text and the longest branch off its end take together.

    ``budget`` is one that a measurement states in addition to those of ``config``; ``trunk`` counts the tokens of the
    longest text, header included, where that is not a document of document_tokens.
    """
    largest = _largest_budget(config, budget)
    opening = form.opening(largest if config.use_budget else None)
    frame = len(opening) + len(form.close) + len(form.cue([0] * 2 * TAIL_TOKENS, 2 * TAIL_TOKENS))
    trunk = trunk or len(form.trunk("")[0]) + config.document_tokens
    return trunk + frame + thought_cap(largest) + form.answer_limit


def _largest_budget(config: RMTConfig, budget: int | None) -> int:
    largest = max(config.budget_start, config.evaluation_budget, budget or 0)
    return 2 * largest if config.use_budget and config.budget_rule == "entropy" else largest


def longest_read(settings: Any) -> int | None:
    """Return how many tokens a model has learned to read, by its own configuration; None where it does not say."""
    text = settings.get_text_config() if settings is not None else None
    return getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None)  # MPT has the second


def require_room(
    name: str, settings: Any, form: AnswerFormat, config: RMTConfig, budget: int | None = None, trunk: int = 0
) -> None:
    """Raise a UserError where lengths exceed what the model ``name``, of configuration ``settings``, has learned."""
    most, needed = longest_read(settings), longest_branch(form, config, budget, trunk)
    if most is None or needed <= most:
        return
    settled = max(config.budget_start, config.evaluation_budget)
    flag = "--budget-start" if settled == config.budget_start else "--evaluation-budget"
    remedy = f"give shorter questions or lower {flag}" if trunk else f"lower --document-tokens or {flag}"
    remedy = "lower the budget" if (budget or 0) > settled else remedy
    what = f"the longest question has {trunk} tokens" if trunk else f"document_tokens is {config.document_tokens}"
    raise UserError(
        f"{what}; with thoughts of up to {thought_cap(_largest_budget(config, budget))} tokens that makes {needed}, "
        f"and model {name!r} reads at most {most}: {remedy}"
    )


def proxy_of(policy: "Policy", config: RMTConfig, longest: int = 0) -> "Policy | None":
    """Return the model that measures entropies for the policy, loaded once, or None where it measures its own."""
    from rmt_mini.engine.model import load_policy

    name = config.entropy_model
    if name == "self":
        policy.proxy = None
    elif policy.proxy is None or policy.proxy.name != name:
        policy.proxy = load_policy(name, config.device, config.dtype)
    measuring = policy.proxy or policy
    vocabulary = len(measuring.model.get_output_embeddings().weight)
    if config.entropy_top_k > vocabulary:
        found = f"entropy_top_k is {config.entropy_top_k}, and model {measuring.name!r} knows {vocabulary} tokens"
        raise UserError(f"{found}; give at most that many, or 0 for all")
    if policy.proxy is None:
        return None
    if policy.proxy.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        found = f"entropy_model {name!r} has another tokenizer than {policy.name!r}"
        raise UserError(f"{found}; choose a proxy of the same family, or 'self'")
    most = longest_read(policy.proxy.model.config)
    if most is not None and longest > most:
        found = f"entropy_model {name!r} reads at most {most} tokens, and the longest text has {longest}"
        raise UserError(f"{found}; lower --document-tokens, or choose another")
    return policy.proxy


def to_texts(documents: Sequence[Document], form: AnswerFormat, config: RMTConfig, where: str) -> list[Text]:
    """Tokenize documents and cut long ones into parts of equal length, at most document_tokens each.

    A document with ``cut`` keeps its first document_tokens only; those of fewer than min_document_tokens (or two) are
    left out. First parts come first, then second ones and so on, so that the first few texts are of many documents.
    ``where`` names the side of the split, for messages.
    """
    header, first = form.trunk("")
    start, least, unknown = len(header), max(2, config.min_document_tokens), unknown_tokens(form.tokenizer)
    numbered: list[tuple[int, Text]] = []
    sizes = []
    for document in documents:
        body, sorts = form.trunk(document.text)[0][start:], _sorts(document, form)
        sizes.append(len(body))
        if len(body) < least:
            continue
        kept = min(len(body), config.document_tokens) if document.cut else len(body)
        count = -(-kept // config.document_tokens)
        for number, (begin, end) in enumerate(pairwise(kept * part // count for part in range(count + 1))):
            ids = (*header, *body[begin:end])
            name = document.id if count == 1 else f"{document.id} ({number + 1} of {count})"
            strange = tuple(index for index in range(first, len(ids)) if ids[index] in unknown)
            own = (*[""] * start, *sorts[begin:end]) if sorts else ()
            numbered.append((number, Text(name, ids, first, own, unknown=strange)))
    texts = [text for _, text in sorted(numbered, key=lambda pair: pair[0])]
    if not texts:
        raise UserError(
            f"corpus {config.corpus!r}: none of the {len(documents)} {where} documents has min_document_tokens "
            f"({least}) tokens, the longest has {max(sizes, default=0)}; give longer text or a smaller "
            f"--min-document-tokens"
        )
    tokens = sum(len(text.ids) - start for text in texts)
    share = sum(len(text.unknown) for text in texts) / tokens
    if share > MOST_UNKNOWN:
        raise UserError(
            f"corpus {config.corpus!r}: {share:.0%} of the {where} tokens are unknown to the tokenizer of model "
            f"{config.model!r} (at most {MOST_UNKNOWN:.0%} may be); give text in a script that it covers, or choose a "
            f"model whose tokenizer covers all characters, as byte-level ones do"
        )
    short = sum(size < least for size in sizes)
    logger.info(
        "%s: %d documents, %d tokens, %d kept (%.1f %%) in %d texts; left out as shorter than %d tokens: %d; "
        "unknown to the tokenizer and never asked: %.2f %%",
        *(where, len(documents), sum(sizes), tokens, 100 * tokens / sum(sizes), len(texts), least, short, 100 * share),
    )
    return [text for text in texts if text.places]


def unknown_tokens(tokenizer: Any) -> set[int]:
    """Return the ids of what a tokenizer does not know; byte-level ones have none that a text can hold."""
    one, other = (encode_text(tokenizer, letter)[-1:] for letter in RARE_LETTERS)
    declared = set() if tokenizer.unk_token_id is None else {tokenizer.unk_token_id}
    return declared | ({*one} & {*other})


def unknown_share(tokenizer: Any, texts: Sequence[Text]) -> float:
    """Return the share of some texts' tokens that a tokenizer does not know."""
    unknown, tokens = unknown_tokens(tokenizer), [token for text in texts for token in text.ids]
    return sum(token in unknown for token in tokens) / len(tokens)


def _sorts(document: Document, form: AnswerFormat) -> list[str]:
    """Assign the sorts of a document's spans to its tokens."""
    if not document.spans:
        return []
    encoded = form.tokenizer(
        document.text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
    )
    # of a word, not of the blank before it: that may be a token of its own, which nothing has to be known for
    words = [(s.stop - len(document.text[s.start : s.stop].lstrip()), s.stop, s.sort) for s in document.spans]
    return [
        next((sort for first, last, sort in words if start < last and first < stop), "")
        for start, stop in encoded["offset_mapping"]
    ]
