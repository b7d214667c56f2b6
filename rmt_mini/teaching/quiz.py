"""The quiz: questions out of ``quiz.yaml``, as Markdown sheets and as buttons that explain every option.

Everything is a button, reached with Tab and pressed with Space: in JupyterLab arrow keys move between cells, so lists
and radio buttons cannot be used from the keyboard. A pressed button is never disabled: it would lose the focus. The
first answer counts; others may be tried afterwards, for their explanations.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import ipywidgets
from pydantic import TypeAdapter

from rmt_mini.config import data
from rmt_mini.errors import UserError
from rmt_mini.report.markdown import macro
from rmt_mini.teaching.widgets.controls import alert, status

LETTERS = "ABCDE"  # of the options
# ipywidgets cuts off long button labels; an option must be readable whole.
_STYLE = (
    "<style>.rmt-quiz .rmt-option { height: auto; white-space: normal; text-align: left; line-height: 1.5;"
    " padding: 0.3em 0.8em; }"
    " .rmt-quiz button:focus-visible { outline: 2px solid currentColor !important; outline-offset: -3px; }</style>"
)


@dataclass(frozen=True)
class Option:
    """One option, and why it is right or what is wrong with it."""

    text: str
    why: str
    right: bool = False


@dataclass(frozen=True)
class QuizQuestion:
    """A question with several options, one of which is right."""

    lesson: int  # that answers it
    name: str  # unique
    asks: str
    options: tuple[Option, ...]
    holds: tuple[str, ...] = ()  # expressions that the tests evaluate against the package

    @property
    def right(self) -> int:
        """The index of the right option."""
        return [option.right for option in self.options].index(True)


_ENTRIES = data("teaching/quiz.yaml")
QUESTIONS = TypeAdapter(tuple[QuizQuestion, ...]).validate_python(_ENTRIES)


def question_sheet(answers: bool = False) -> str:
    """Return the questions as Markdown, with or without the right options and the explanations."""
    return macro("tables.md.j2", "quiz", QUESTIONS, answers) + "\n"


class Quiz(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no annotations
    """Questions with a button for each option, an explanation of every option chosen, and a score of first answers."""

    def __init__(self, questions: Sequence[QuizQuestion]) -> None:
        self.questions, self.first = tuple(questions), dict[int, int]()  # the first answer to each
        self.buttons: list[list[ipywidgets.Button]] = []
        self.messages, self.standing = [ipywidgets.HTML() for _ in questions], ipywidgets.HTML()
        parts: list[ipywidgets.Widget] = [ipywidgets.HTML(_STYLE)]
        for number, question in enumerate(self.questions):
            title = f"{number + 1}. {question.name} (lesson {question.lesson})"
            asks = f'<p><b>{html.escape(title)}</b></p><p style="line-height: 1.5">{html.escape(question.asks)}</p>'
            self.buttons.append([])
            for place, option in enumerate(question.options):
                button = ipywidgets.Button(
                    description=f"{LETTERS[place]}. {option.text}",
                    tooltip=f"answer {LETTERS[place]} to question {number + 1}",
                    layout={"width": "auto", "height": "auto"},
                )
                button.on_click(lambda _, number=number, place=place: self.answer(number, place))
                button.add_class("rmt-option")
                self.buttons[-1].append(button)
            parts += [ipywidgets.HTML(asks), *self.buttons[-1], self.messages[number]]
        super().__init__([*parts, self.standing], layout={"max_width": "48em"})
        self.add_class("rmt-quiz")

    @property
    def score(self) -> tuple[int, int]:
        """How many first answers were right, and how many were given."""
        return sum(self.questions[n].right == place for n, place in self.first.items()), len(self.first)

    def answer(self, number: int, place: int) -> None:
        """Choose an option of a question: label it, explain it, and show the score."""
        option = self.questions[number].options[place]
        self.first.setdefault(number, place)
        verdict = "right" if option.right else "not right"
        self.buttons[number][place].description = f"{LETTERS[place]}. {option.text} ({verdict})"
        words = f"{LETTERS[place]} is {verdict}. {option.why}"
        self.messages[number].value = status(words) if option.right else alert(words)
        right, given = self.score
        words = f"{right} of {given} right at the first try."
        if given == len(self.questions):
            missed = {self.questions[n].lesson for n, first in self.first.items() if self.questions[n].right != first}
            again = ", ".join(map(str, sorted(missed)))
            words += f" All questions are answered. {f'Review lesson {again}.' if again else 'All were right.'}"
        self.standing.value = status(words)


def quiz(lesson: int | None = None) -> Quiz:
    """Ask the questions of one lesson, or of all; a UserError if there is no question about that lesson."""
    chosen = [one for one in QUESTIONS if lesson is None or one.lesson == lesson]
    if not chosen:
        known = ", ".join(str(number) for number in sorted({one.lesson for one in QUESTIONS}))
        raise UserError(f"lesson {lesson!r} has no questions; give one of {known}")
    return Quiz(chosen)
