"""Markdown that is safe whatever a model wrote: nothing in it takes effect as Markdown or HTML."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence

UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # kinds of characters that steer instead of showing


def escape(text: object, limit: int = 300) -> str:
    r"""Make any text safe inside a line or a table cell of Markdown; blanks at its ends and line ends become signs.

    Example:
        >>> print(escape(" a|b\n<i>"))
        ␣a&#124;b↵&lt;i&gt;
    """
    shown = str(text) if len(str(text)) <= limit else f"{str(text)[:limit]} …"
    shown = re.sub(r"\r\n?|\n", "↵", shown).replace("\t", "⇥")
    shown = re.sub(r"^ +| +$", lambda blanks: "␣" * len(blanks[0]), shown)
    shown = "".join("\ufffd" if unicodedata.category(one) in UNSEEN else one for one in shown)
    return re.sub(
        r"[`|*_\[\]~$\\@]|:(?=//)|(?<=www)\.", lambda sign: f"&#{ord(sign[0])};", html.escape(shown), flags=re.I
    )


def code(text: object, limit: int = 300) -> str:
    """Show text as code, escaped."""
    return f"<code>{escape(text, limit)}</code>" if text else "(nothing)"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
