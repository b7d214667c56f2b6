"""The quiz: one question at a time, an explanation for whatever is chosen, and a score.

Everything is a button, reached with Tab and pressed with Space: in JupyterLab arrow keys move between cells, so that
lists and radio buttons cannot be worked from the keyboard there. A button that was pressed is never switched off: a
page would lose its focus with it. The first answer counts; others may be tried afterwards, for their explanations.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import ipywidgets

from rmt_mini.errors import UserError
from rmt_mini.teaching.question import Question
from rmt_mini.teaching.quiz import QUESTIONS, letter
from rmt_mini.teaching.widgets.controls import alert, said

# ipywidgets cuts the words of a button off at its end; these shall be read whole
_STYLE = (
    "<style>.rmt-quiz .rmt-option { height: auto; white-space: normal; text-align: left; line-height: 1.5;"
    " padding: 0.3em 0.8em; }"
    " .rmt-quiz button:focus-visible { outline: 2px solid currentColor !important; outline-offset: -3px; }</style>"
)


def quiz(lesson: int | None = None) -> Quiz:
    """Ask the questions of all lessons, or of one.

    Args:
        lesson: its number; None takes all.

    Raises:
        UserError: if there is no question about that lesson.

    Example:
        >>> asked = quiz(lesson=3)
        >>> asked.options[3].click()
        >>> asked.score
        (1, 1)
    """
    chosen = [one for one in QUESTIONS if lesson is None or one.lesson == lesson]
    if not chosen:
        known = ", ".join(str(number) for number in sorted({one.lesson for one in QUESTIONS}))
        raise UserError(f"lesson {lesson!r} has no questions; give one of {known}")
    return Quiz(chosen)


class Quiz(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no annotations
    """Questions and what was answered; ``quiz`` makes it.

    Attributes:
        questions: what is asked, in order.
        number: the index of the question that is shown.
        first: index of a question -> index of the option that was chosen first.
        options: a button for each option.
        buttons: name -> button: back, next, again.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions, self.number = list(questions), 0
        self.first: dict[int, int] = {}
        self._tried: set[int] = set()  # of the question that is shown
        self._where, self._asked, self._told, self._standing = (ipywidgets.HTML() for _ in range(4))
        most = max(len(one.options) for one in self.questions)
        self.options = [ipywidgets.Button(layout={"width": "auto", "height": "auto"}) for _ in range(most)]
        for place, option in enumerate(self.options):
            option.add_class("rmt-option")
            option.on_click(lambda _, place=place: self._answer(place))
        self.buttons = {
            name: ipywidgets.Button(description=words, tooltip=tip)
            for name, words, tip in (
                ("back", "Previous question", "go to the question before"),
                ("next", "Next question", "go to the next question, answered or not"),
                ("again", "Start again", "forget all answers"),
            )
        }
        self.buttons["back"].on_click(lambda _: self.show(self.number - 1))
        self.buttons["next"].on_click(lambda _: self.show(self.number + 1))
        self.buttons["again"].on_click(lambda _: self.forget())
        row = ipywidgets.HBox(list(self.buttons.values()), layout={"flex_flow": "row wrap"})
        super().__init__(
            [ipywidgets.HTML(_STYLE), self._where, self._asked, *self.options, self._told, row, self._standing],
            layout={"max_width": "48em"},
        )
        self.add_class("rmt-quiz")
        self.show(0)

    @property
    def question(self) -> Question:
        """The question that is shown."""
        return self.questions[self.number]

    @property
    def score(self) -> tuple[int, int]:
        """How many first answers were right, and how many were given."""
        right = sum(self.questions[number].right == place for number, place in self.first.items())
        return right, len(self.first)

    @property
    def told(self) -> str:
        """What is said about the option that was chosen last, as HTML."""
        return str(self._told.value)

    @property
    def standing(self) -> str:
        """What is said about the score, as HTML."""
        return str(self._standing.value)

    def show(self, number: int) -> None:
        """Show a question; behind the last comes the first."""
        self.number = number % len(self.questions)
        question, self._tried = self.question, set()
        of = f"Question {self.number + 1} of {len(self.questions)}, lesson {question.lesson}: {question.name}"
        self._where.value = f'<p role="status"><b>{html.escape(of)}</b></p>'
        self._asked.value = f'<p style="line-height: 1.5">{html.escape(question.asks)}</p>'
        self._told.value = ""
        for place, button in enumerate(self.options):
            button.layout.display = None if place < len(question.options) else "none"
        if self.number in self.first:
            self._tried = {self.first[self.number], question.right}
            self._tell(self.first[self.number])
        self._label()
        self._count()

    def forget(self) -> None:
        """Forget all answers, and begin with the first question."""
        self.first = {}
        self.show(0)

    def _answer(self, place: int) -> None:
        self.first.setdefault(self.number, place)
        self._tried.add(place)
        self._tell(place)
        self._label()
        self._count()

    def _tell(self, place: int) -> None:
        right = place == self.question.right
        words = f"{letter(place)} is {'right' if right else 'not right'}. {self.question.why[place]}"
        self._told.value = said(words) if right else alert(words)

    def _label(self) -> None:
        for place, (button, option) in enumerate(zip(self.options, self.question.options, strict=False)):
            right = place == self.question.right
            mark = (" (right)" if right else " (not right)") if place in self._tried else ""
            button.description = f"{letter(place)}. {option}{mark}"
            button.tooltip = f"answer {letter(place)}"

    def _count(self) -> None:
        right, given = self.score
        words = f"{right} of {given} right at the first try."
        if given == len(self.questions):
            asked = zip(self.questions, (self.first[number] for number in range(given)), strict=True)
            missed = {question.lesson for question, place in asked if place != question.right}
            again = ", ".join(str(lesson) for lesson in sorted(missed))
            words += (
                f" All questions are answered. {f'Look again at lesson {again}.' if again else 'Nothing was missed.'}"
            )
        self._standing.value = said(words) if given else ""
