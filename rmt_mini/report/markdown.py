"""Templates, and Markdown that is safe whatever a model wrote: nothing in it takes effect as Markdown or HTML."""

import html
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2

from rmt_mini.files import Cell, Change

UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # kinds of characters that steer instead of showing


def escape(text: object, limit: int = 300) -> str:
    """Make any text safe inside a line or a table cell of Markdown; blanks at its ends and line ends become signs."""
    shown = str(text) if len(str(text)) <= limit else f"{str(text)[:limit]} …"
    shown = re.sub(r"\r\n?|\n", "↵", shown).replace("\t", "⇥")
    shown = re.sub(r"^ +| +$", lambda blanks: "␣" * len(blanks[0]), shown)
    shown = html.escape("".join("\ufffd" if unicodedata.category(one) in UNSEEN else one for one in shown))
    return re.sub(r"[`|*_\[\]~$\\@]|:(?=//)|(?<=www)\.", lambda sign: f"&#{ord(sign[0])};", shown, flags=re.I)


def code(text: object, limit: int = 300) -> str:
    """Show text as code, escaped."""
    return f"<code>{escape(text, limit)}</code>" if text else "(nothing)"


def share(cell: Cell, form: str = "{0:.1f} [{1:.1f}, {2:.1f}]") -> str:
    """Show accuracy and interval in %, or a dash where nothing was asked."""
    numbers = (cell.accuracy, cell.low, cell.high)
    return "-" if cell.accuracy is None else form.format(*(100 * (one or 0.0) for one in numbers))


def points(change: Change, by: float = 100) -> str:
    """Show a difference times ``by`` with its interval, as far as they are known."""
    if change.difference is None:
        return "-"
    if change.low is None or change.high is None:
        return f"{by * change.difference:+z.1f}"
    return f"{by * change.difference:+z.1f} [{by * change.low:+z.1f}, {by * change.high:+z.1f}]"


def span(values: Sequence[float], form: str) -> str:
    """Say where values begin and where they end."""
    ends = [format(value, form) for value in values]
    more = "" if len(ends) < 2 else " throughout" if len(set(ends)) == 1 else f" at first and {ends[-1]} at last"
    return ends[0] + more if ends else "-"


_TEMPLATES = jinja2.Environment(  # of HTML they escape by themselves, of Markdown by the filters escape and code
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=lambda name: bool(name) and ".html" in str(name),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"escape": escape, "code": code, "share": share, "points": points, "span": span, "f": format}
_TEMPLATES.filters["mean"] = lambda records, field: fmean(getattr(one, field) for one in records)
_TEMPLATES.filters["ends"] = lambda records, field, form: span([getattr(one, field) for one in records], form)
_TEMPLATES.filters["percent"] = lambda value, form=".0f": f"{100 * value:{form}} %"
_TEMPLATES.globals |= {"zip": zip, "tiers": ("easy", "medium", "hard")}


def render(template: str, **values: Any) -> str:
    """Fill a template of Markdown; parts are one blank line apart."""
    return re.sub(r"\n{3,}", "\n\n", _TEMPLATES.get_template(template).render(values)).strip() + "\n"


def macro(template: str, name: str, *values: Any, **more: Any) -> str:
    """Fill one macro of a template."""
    return str(getattr(_TEMPLATES.get_template(template).module, name)(*values, **more)).strip()


def words(name: str, *values: Any, **more: Any) -> str:
    """Say what a figure shows: a macro of alt.j2, on one line."""
    return " ".join(macro("alt.j2", name, *values, **more).split())
