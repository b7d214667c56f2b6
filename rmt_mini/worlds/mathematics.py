r"""Compare answers as mathematics: latex2sympy reads them, math-verify compares the expressions.

math-verify's own ``parse`` searches a text for anything it can read, so "sum_(i=1)^n i^3" becomes 1. Here the whole
text is read, or nothing. An answer is a list of solutions, and a solution has a value for each unknown:

    376 and 625                  two solutions
    x=0, y=2 and x=9, y=11       two solutions with two unknowns; also written (0, 2), (9, 11)

The order of the solutions does not matter; the order of the unknowns does.
"""

import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

from math_verify import verify
from math_verify.parser import LatexExtractionConfig, latex2sympy, normalize_latex
from sympy import Float, Rational

from rmt_mini.config import data

LONGEST = 200  # characters of an answer that is worth reading
TABLE: dict[str, Any] = data("worlds/answers.yaml")
NAME, THOUSANDS, REFUSED = (re.compile(TABLE[name]) for name in ("name", "thousands", "refused"))
PRODUCT, NO_UNIT = re.compile(TABLE["product"]), re.compile(TABLE["no_unit"])
REWRITTEN = [
    (re.sub(r"<(\w+)>", lambda found: TABLE["parts"][found[1]], find), put) for find, put in TABLE["rewritten"]
]
# without its units: they make a 2 of "2d" and of "2 less"
NORMAL = replace(LatexExtractionConfig().normalization_config, units=False)


def score(given: str, gold: str, question: str) -> float:
    r"""Return 1.0 if an answer says the same as the right one, else 0.0; words of the question may follow, as units do.

    Nothing bounds the time: sympy works out 9^{9^{9^9}}. Call it through a ``Referee``.

    Example:
        >>> [score(given, "239", "How many strings?") for given in (r"**\frac{478}{2}**.", "239 strings", "239 or 240")]
        [1.0, 1.0, 0.0]
    """

    def same(right: Any, value: str) -> bool:  # every part of "10*9/2 = 45" has to be right
        parts = [_expression(part) for part in value.split("=")]
        # 50 digits, so that a long decimal is not taken for a square root
        options = {"numeric_precision": 50, "timeout_seconds": None, "allow_set_relation_comp": True}
        return all(verify(right, part, **options) for part in parts)

    names = _names(gold)
    try:
        right = [{name: _expression(value) for name, value in one.items()} for one in _solutions(gold, question, names)]
        if len(right) == 1 and len(names) < 2:
            given = THOUSANDS.sub("", given)
        said = _solutions(given, question, names)
        found = [any(all(same(one[name], other[name]) for name in one) for other in said) for one in right]
    except Exception:  # the parser raises many kinds of errors on text that is no mathematics
        return 0.0
    return float(all(found) and len(said) == len(right))


def is_readable(gold: str, question: str) -> bool:
    """Whether the whole of a right answer is mathematics, without words and with one value for each unknown."""
    try:
        values = [value for one in _solutions(gold, question, _names(gold)) for value in one.values()]
        list(map(_expression, values))
    except Exception:
        return False
    return not any("=" in value or re.search(r"(?<![A-Za-z\\])[A-Za-z]{2}", value) for value in values)


def _names(gold: str) -> list[str]:
    return list(dict.fromkeys(NAME.findall(gold)))


def _solutions(text: str, question: str, names: list[str]) -> list[dict[str, str]]:
    """Return the LaTeX of each solution's values by unknown; a single unknown without a name is ''."""
    text = _undressed(text, question)
    if len(names) < 2:
        parts = _split(text.replace(";", ","), ",")
        items = [part.replace("±", sign) for part in parts for sign in ("+-" if "±" in part else "+")]
        return [_assigned([item], names or [""]) for item in items]
    together = r"\s*,\s*".join(map(re.escape, names))  # (x, y) = (0, 2)
    solutions = []
    for alternative in _split(re.sub(rf"\(\s*{together}\s*\)\s*=\s*", "", text), ";"):
        items = _split(alternative, ",")
        if all(item.startswith("(") for item in items):
            solutions += [_assigned(_split(item[1:].removesuffix(")"), ","), names) for item in items]
            continue
        if len(items) > len(names) and not all(map(NAME.match, items)):
            raise ValueError("values without names or parentheses belong to no solution")
        solutions += [_assigned(items[at : at + len(names)], names) for at in range(0, len(items), len(names))]
    return solutions


def _undressed(text: str, question: str) -> str:
    """Take off what models put around an answer: markdown, dollars, a full stop, a unit that the question names."""
    if len(text) > LONGEST:
        raise ValueError("too long")
    for pattern, replacement in REWRITTEN:
        text = re.sub(pattern, replacement, text)
    unit = re.search(r"(?<=[\d}!)])(?:\s+[A-Za-z-]{2,})+$", text)
    words = unit[0].lower() if unit else ""
    if unit and not NO_UNIT.search(words) and {*words.split()} <= {"ways", *re.findall(r"[a-z-]+", question.lower())}:
        text = text[: unit.start()]
    left, _, right = text.partition("=")
    if right and not NAME.match(text):  # "x^2+y^2 = ..." where the question says "Find x^2+y^2"
        spelled = r"[\s{}()*]*".join(map(re.escape, re.sub(r"[\s{}()*]", "", left)))
        asked = rf"\b(?:find|value of|what is)[\s(]+{spelled}(?!\w|[\s{{}}()]*[-+*/^=])"
        text = right.strip() if re.search(asked, question, re.IGNORECASE) else text
    if REFUSED.search(text):
        raise ValueError("no answer")
    return text


def _split(text: str, separator: str) -> list[str]:
    """Split at the separators that are in no brackets."""
    items, depth = [""], 0
    for sign in text:
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(sign, 0)
        if sign == separator and depth == 0:
            items.append("")
        else:
            items[-1] += sign
    return [item.strip() for item in items]


def _assigned(items: list[str], names: list[str]) -> dict[str, str]:
    """Give each unknown its value: by name if names are given, else in order."""
    named = [NAME.match(item) for item in items]
    values = [item[name.end() :] if name else item for item, name in zip(items, named, strict=True)]
    if names != [""] and any(named):
        names = [name[1] if name else "" for name in named]
    return dict(zip(names, values, strict=True))


@lru_cache(maxsize=1000)
def _expression(latex: str) -> Any:
    normal = normalize_latex(PRODUCT.sub("*", latex), NORMAL)
    read = latex2sympy(normal, is_real=True, convert_degrees=False, normalization_config=None)
    return read.xreplace({decimal: Rational(str(decimal)) for decimal in read.atoms(Float)})  # 0.357143 is not 5/14
