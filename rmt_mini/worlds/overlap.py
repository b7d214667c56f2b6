"""Which documents say nearly the same? What is held out must not be read in training.

Documents of the micro-world name the calculations in them. For other text, two documents are near-duplicates if they
share a run of 12 words, and so are those that such pairs connect; all of them are held out together, or none.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rmt_mini.errors import logger
from rmt_mini.records import Document, Overlap

RUN = 12  # words; letters and digits alone count, in either case


def _runs(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return every run of words as the number of its text, (N,), and a 64-bit hash, (N,)."""
    known: dict[str, int] = {}
    factors = np.array([pow(0x9E3779B97F4A7C15, place, 2**64) for place in range(RUN)], dtype=np.uint64)
    hashes = []
    for text in texts:
        numbers = [known.setdefault(word, len(known) + 1) for word in re.findall(r"\w+", text.lower())]
        words = np.array(numbers, dtype=np.uint64)
        hashes.append(sliding_window_view(words, RUN) @ factors if len(words) >= RUN else words[:0])
    return np.repeat(np.arange(len(texts)), [len(one) for one in hashes]), np.concatenate(hashes)


def grouped(documents: Sequence[Document]) -> list[Document]:
    """Give near-duplicates the text of the first of them as their key, so that they are held out together.

    If one group has more than half of the documents, as where all begin with one notice, they stay apart, with a
    warning.

    Example:
        >>> long = "one two three four five six seven eight nine ten eleven twelve"
        >>> found = grouped([Document("a", long), Document("b", f"So: {long}!"), Document("c", "Else.")])
        >>> [one.keys[0][:7] for one in found]
        ['one two', 'one two', 'Else.']
    """
    count, (rows, runs) = len(documents), _runs([document.text for document in documents])
    names, run = np.unique(runs, return_inverse=True)
    links = coo_array((np.ones(len(rows)), (rows, count + run)), shape=(count + len(names),) * 2)
    labels = connected_components(links, directed=False)[1][:count]
    _, first, group, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    if sizes.max() > max(2, count / 2):
        shared = f"{sizes.max()} of {count} documents are connected by shared runs of {RUN} words"
        logger.warning("%s; they are split one by one. Remove what they share, a notice perhaps", shared)
        return list(documents)
    return [replace(one, keys=(documents[first[own]].text,)) for one, own in zip(documents, group, strict=True)]


def repeats(read: Sequence[Document], others: Sequence[Document]) -> set[int]:
    """Return the places of those among ``others`` that share a run of 12 words with a document that was read."""
    rows, runs = _runs([one.text for one in (*read, *others)])
    shared = np.isin(runs, runs[rows < len(read)]) & (rows >= len(read))
    return {*(rows[shared] - len(read)).tolist()}


def overlap(train: Sequence[Document], held_out: Sequence[Document], calculations: bool = False) -> Overlap:
    """Count held-out documents that share a run of 12 words, or a calculation, with a training document.

    Statements of a generated text are all alike, so there calculations are compared; keys are then what they are.
    """
    if calculations:
        read = {key for one in train for key in one.keys}
        return Overlap(sum(not read.isdisjoint(one.keys) for one in held_out), len(held_out), "a calculation")
    return Overlap(len(repeats(train, held_out)), len(held_out), f"a run of {RUN} words")
