"""The files of a run or comparison: typed, checked when read, written whole or not at all.

Each class names its file. Lines of metrics.jsonl are StepMetrics, of rollouts.jsonl RolloutLine, and of answers.jsonl
AnswerLine (ExamLine in post-training), of curve.jsonl CurvePoint.
"""

import functools
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, NamedTuple, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo, field_validator

from rmt_mini.arms import ARMS, MAIN, Arm
from rmt_mini.config import PretrainConfig, RMTConfig
from rmt_mini.errors import UserError, logger
from rmt_mini.records import Answer, Overlap, Position, StepMetrics, whole_of

LOCK, UNFINISHED = ".lock", "unfinished"
UNBORN = (LOCK, ".run.json.")  # all that a process can leave that was killed before it wrote run.json
DIGESTS = ("corpus_digest", "token_digest", "model_digest", "proxy_digest")

Share = Annotated[float, Field(ge=-1e-9, le=1 + 1e-9)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=-1e-9)]
Tier = Annotated[int, Field(ge=0, le=2)]
Time = Literal["before", "cold_start", "after"]  # at which a run is measured
TIMES: tuple[Time, ...] = get_args(Time)
Kind = Literal["mid-training", "pre-training", "post-training"]
Machine = dict[str, str | int | None]


class Record(BaseModel):
    """A part of a file: frozen, with known fields only, and finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class File(Record):
    """A JSON file that reads, checks and writes itself; a subclass says its name in a folder."""

    NAME: ClassVar[str]

    def __init_subclass__(cls, name: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.NAME = name

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the file of a folder; a UserError if it is missing, or does not hold what it should."""
        path = folder / cls.NAME
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UserError(f"{str(path)!r} cannot be read ({error.strerror}); give the folder of a run") from error
        except (ValidationError, UserError) as error:
            raise damaged(path, error) from error

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """Read the file where there is one; as ``read`` otherwise."""
        return cls.read(folder) if (folder / cls.NAME).exists() else None

    def write(self, folder: Path) -> None:
        """Write the file whole; fields that were never set are left out."""
        write_whole(folder / self.NAME, self.model_dump_json(indent=1, exclude_unset=True) + "\n")


class Notes(File, name="run.json", frozen=False):
    """run.json: what ran, with what, and how it ended; ``kind`` says which kind of run it is."""

    kind: Kind
    config: RMTConfig | PretrainConfig
    seed: int
    status: Literal["running", "done", "interrupted", "failed"] = "running"
    command: str
    versions: dict[str, str]
    machine: Machine
    start: str
    end: str | None = None
    error: str | None = None
    seconds: dict[str, float] = {}
    resumed: list[str] = []
    parameters: int | None = None
    corpus_digest: str | None = None
    token_digest: str | None = None
    model_digest: str | None = None
    proxy_digest: str | None = None
    overlap: Overlap | None = None
    unknown_share: Share | None = None  # of the tokens; none of them is asked or trained on
    tracking_id: str | None = None  # under which ``report_to`` knows the run
    questions: str | None = None
    questions_left_out: int | None = None
    training_questions: int | None = None

    @field_validator("config", mode="before")
    @classmethod
    def _by_kind(cls, value: object, info: ValidationInfo) -> object:
        kind = PretrainConfig if info.data.get("kind") == "pre-training" else RMTConfig
        return kind(**value) if isinstance(value, dict) else value

    @property
    def settings(self) -> RMTConfig:
        """The settings of mid-training or post-training; a UserError if this is a run of pre-training."""
        if isinstance(self.config, RMTConfig):
            return self.config
        raise UserError("a pre-training run has other settings; give the folder of a mid-training run")


class Cell(Record):
    """A mean accuracy with its interval; None where nothing was asked."""

    accuracy: Share | None
    low: Share | None
    high: Share | None
    n: Count
    thought_length: float | None = None  # of one sort of token of a generated text


class Tiers(Record):
    """Accuracies by tier and on average."""

    easy: Cell
    medium: Cell
    hard: Cell
    average: Cell

    def columns(self) -> list[Cell]:
        """Return easy, medium, hard, average."""
        return [self.easy, self.medium, self.hard, self.average]


class Row(Tiers):
    """One way to answer the held-out positions, under a stated budget; by sort where the text was generated."""

    thought_length: float
    closed_share: Share
    sorts: dict[str, Cell] = {}
    budget: Count = 0


class Mean(Record):
    """A mean with its interval; None where nothing was asked."""

    mean: float | None
    low: float | None
    high: float | None
    n: Count


class Measured(Record):
    """The same positions answered plainly and after a thought; ``more`` by measure, then average or sort."""

    ntp: Row
    think: Row
    more: dict[str, dict[str, Mean]] = {}


class CurvePoint(Record):
    """A line of curve.jsonl: a few held-out positions after some steps."""

    step: Count
    plain: Share
    think: Share
    thought_length: Amount
    sorts: dict[str, tuple[Share, Share]] = {}  # plain and think


class Change(Record):
    """A difference with its interval; None where it is not known."""

    difference: float | None
    low: float | None
    high: float | None
    n: int | None = None

    @property
    def sign(self) -> int:
        """1 or -1 where the interval excludes zero, else 0."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


class Evaluation(File, name="evaluation.json"):
    """evaluation.json of a run, or of several that differ in their seed alone."""

    seeds: list[int] | None = None
    before: Measured | None = None
    cold_start: Measured | None = None
    after: Measured | None = None
    gain: dict[str, Change] = {}
    length_change: dict[str, Change] = {}


class Retained(Record):
    """A metric of a task before and after, a mean over its questions, and the paired difference."""

    before: Mean
    after: Mean
    change: Change


class Benchmark(File, name="benchmark.json"):
    """benchmark.json: tasks of lm-evaluation-harness -> metric -> what changed."""

    before: str
    after: str
    limit: int | None
    tasks: dict[str, dict[str, Retained]]
    versions: dict[str, str]


class PassRow(Record):
    """pass@k of an exam by k, with intervals over questions."""

    pass_at: dict[int, Cell]
    questions: Count
    samples: Count
    thought_length: float
    closed_share: Share


class ExamEvaluation(File, name="evaluation.json"):
    """evaluation.json of a post-training run."""

    before: PassRow
    after: PassRow
    gain: dict[int, Change]


class Predicted(Record):
    """What the pre-flight found on one tier."""

    positions: Count
    accuracy: Share | None
    pass_at_g: Share | None
    signal_groups: Share | None


class SeenTier(Record):
    """What the first steps of training saw on one tier."""

    groups: Count
    signal_groups: Share | None


class Seen(Record):
    """The first steps of training, by tier."""

    steps: Count
    tiers: dict[str, SeenTier]


class Preflight(File, name="preflight.json"):
    """preflight.json: the signal that RL will find, and, once it ran, the signal that it found."""

    tiers: dict[str, Predicted]
    signal_groups: Share
    closed_share: Share
    thought_length: float
    length_spread: float
    budget: Count
    advice: list[str]
    seen: Seen | None = None


class Positions(File, name="positions.json"):
    """positions.json: held-out positions, sorted by text and index."""

    positions: list[Position]


class AnswerLine(Record):
    """A line of answers.jsonl: one held-out position, answered plainly and after a thought."""

    when: Time
    document: str
    position: Count
    tier: Tier
    sort: str
    plain: Share
    match: Share
    length: Amount
    closed: Share
    confidence: Share
    bits: Amount
    bits_after: Amount | None = None
    gated: Share | None = None
    probe: dict[str, Share] = {}

    def answer(self, position: Position, run: int = 0, base: int = 0) -> Answer:
        """Return it as a record; its rollout is not known any more."""
        kept = {name: getattr(self, name) for name in KEPT}
        return Answer(position=position, run=run, base=base, whole=whole_of(self.document), **kept)


KEPT = {*AnswerLine.model_fields} & {*Answer.__slots__} - {"position"}  # of an answer, in its line


class RolloutLine(Record):
    """A rollout as text that a person can read; rewards only where it was trained on."""

    step: Count
    document: str
    position: Count
    tier: Tier
    entropy: float
    context: str
    budget: int | None
    thought: str
    closed: bool
    answer: str
    truth: str
    match: Share
    length_reward: float | None = None
    reward: float | None = None
    advantage: float | None = None


class Samples(File, name="samples.json"):
    """samples.json: the same few held-out positions at both ends of a run."""

    before: list[RolloutLine] = []
    after: list[RolloutLine] = []


class ExamLine(Record):
    """A line of answers.jsonl of a post-training run: one question after some steps."""

    step: Count
    question: str
    right: Count
    samples: Count
    thought_length: float


class ComparisonPlan(File, name="compare.json"):
    """compare.json: what a comparison compares."""

    config: RMTConfig
    arms: list[Arm]
    seeds: Count
    bases: Count = 1
    control_seeds: Count | None = None  # of arms that are not in arms.MAIN; None: as many as the others

    def added_to(self, before: Self) -> Self:
        """Return this plan with the arms, seeds and bases of another one, too: what either has, every arm gets."""
        names = {arm.name for arm in self.arms}
        arms = [*self.arms, *(arm for arm in before.arms if arm.name not in names)]
        order = [*ARMS, *(arm.name for arm in arms)]  # of the package; variants as they came
        seeds, bases = (max(getattr(self, name), getattr(before, name)) for name in ("seeds", "bases"))
        controls = [one for one in (self, before) if {arm.name for arm in one.arms} - MAIN] or [self]
        fewer = max(one.control_seeds or one.seeds for one in controls)
        arms.sort(key=lambda arm: order.index(arm.name))
        control = fewer if fewer < seeds else None
        return self.model_copy(update={"arms": arms, "seeds": seeds, "bases": bases, "control_seeds": control})

    def has(self, arm: str, seed: int) -> bool:
        """Say whether an arm runs with a seed."""
        return arm in MAIN or self.control_seeds is None or seed < self.config.seed + self.control_seeds

    @property
    def all_seeds(self) -> list[int]:
        """The seeds of each arm from each base, the first from the settings."""
        return list(range(self.config.seed, self.config.seed + self.seeds))

    @property
    def all_runs(self) -> list[tuple[int, int]]:
        """Seed and base of each run of an arm, those of one base together."""
        return [(seed, base) for base in range(self.bases) for seed in self.all_seeds]


class Compute(Record):
    """What a run of an arm took, on average over its seeds."""

    steps: float
    rl_tokens: float
    ntp_tokens: float
    rl_tokens_by_tier: list[float]
    operations: float
    rl_operations: float
    seconds: float
    rl_seconds: float
    cold_start_seconds: float


class ArmRow(Row):
    """One arm of a comparison; ``row`` says whether its result is plain prediction or thinking."""

    row: Literal["ntp", "think"]
    thought_length_interval: tuple[float, float] | None  # None where it is not known
    plain: Tiers
    more: dict[str, dict[str, Mean]] = {}
    curves: dict[str, dict[int, Cell]] = {}  # average or sort -> step -> accuracy
    by_base: list[Share] = []  # the average
    seeds: Count
    compute: Compute | None = None


class Pair(Change):
    """A difference a minus b, on a tier, sort or the average, or of pass@k at a step or, without one, along the way.

    p is that of no difference.
    """

    a: str
    b: str
    tier: str | None = None
    k: Count | None = None
    step: int | None = None
    p: Share | None = None


class Ratio(Record):
    """RMT over another arm, with its interval; p is that of no difference."""

    ratio: float
    low: float
    high: float
    p: Share | None = None


class Comparison(File, name="comparison.json"):
    """comparison.json: every arm, and every other arm against RMT."""

    arms: dict[str, ArmRow]
    paired: list[Pair]
    relative: dict[str, dict[Literal["accuracy", "thought_length"], Ratio | None]]  # RMT over others: accuracy minus 1
    lengths: dict[str, Change]
    overlap: Overlap | None = None  # the same for all seeds
    config: RMTConfig
    seeds: list[int]
    bases: Count = 1
    machine: Machine
    versions: dict[str, str]


class OverPlan(File, name="over.json"):
    """over.json: at which values of a setting a comparison is made."""

    config: RMTConfig
    field: str
    values: list[int | float]
    arms: list[str]
    seeds: Count
    bases: Count = 1


class Crossing(Record):
    """Where lines of two arms cross: ``ahead`` is so at ``low``, ``behind`` at ``high``; ``at`` is interpolated.

    Around it, from ``first`` to ``last``, the interval of the difference includes zero; None is beyond all values, and
    both are None where the difference was not computed.
    """

    ahead: str
    behind: str
    low: float
    high: float
    at: float
    first: float | None = None
    last: float | None = None


class Level(Record):
    """Accuracy of each arm at each value of a setting, and RMT minus each other arm where that was computed."""

    arms: dict[str, dict[float, Cell]]
    differences: dict[str, dict[float, Change]]
    crossings: list[Crossing]


class Map(File, name="map.json"):
    """map.json: accuracy over the values of a setting, "average" of the tiers, and of a sort where the text has it."""

    setting: str
    levels: dict[str, Level]


class Variant(Record):
    """One setting changed: variant minus method."""

    setting: str
    value: str
    default: str
    accuracy: Change
    p: Share | None = None  # that accuracy is the method's
    thought_length: Change
    operations: float


class Sensitivity(File, name="sensitivity.json"):
    """sensitivity.json: variants, those of the setting that matters most first."""

    settings: list[Variant]
    seeds: list[int]


class ExamPlan(File, name="exams.json"):
    """exams.json: which models sit an exam, and how."""

    arms: list[str]
    source: str
    count: Count
    samples: Count
    every: Count
    changes: dict[str, Any] = {}


class ExamStep(Record):
    """A model after some steps of post-training."""

    step: Count
    pass_at: dict[int, Cell]
    thought_length: float
    by_base: list[Share] = []  # pass@1


class ExamOutcome(Record):
    """What became of one exam: every model at every step measured."""

    arms: dict[str, list[ExamStep]]
    paired: list[Pair]
    along: list[Pair]
    samples: Count
    seeds: list[int]
    bases: Count = 1
    settings: ExamPlan


class PostTraining(File, name="posttraining.json", extra="allow"):
    """posttraining.json: source of the questions -> outcome."""

    __pydantic_extra__: dict[str, ExamOutcome] = Field(init=False)

    @property
    def exams(self) -> dict[str, ExamOutcome]:
        """Return the outcomes by source."""
        return self.__pydantic_extra__


Line = TypeVar("Line")
_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)


class Lines(NamedTuple, Generic[Line]):
    """Lines of a .jsonl file, and how many others could not be read."""

    good: list[Line]
    skipped: int


def read_lines(path: Path, kind: type[Line]) -> Lines[Line]:
    """Read a .jsonl file; a line that is not what it should be, or half a line, is skipped and counted."""
    adapter, good, skipped = _adapter(kind), [], 0
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            good.append(adapter.validate_json(line))
        except ValidationError:
            skipped += 1
    return Lines(good, skipped)


def read_metrics(folder: Path) -> list[StepMetrics]:
    """Read the steps of a run."""
    return read_lines(folder / "metrics.jsonl", StepMetrics).good


def as_lines(records: Iterable[object]) -> str:
    """Lay out records as the lines of a .jsonl file."""
    plain = (_adapter(type(one)).dump_python(one, mode="json", exclude_unset=True) for one in records)
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in plain)


def damaged(path: Path, why: object) -> UserError:
    """Say in one line which file is damaged, and where."""
    if isinstance(why, ValidationError):
        first = why.errors(include_url=False)[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return UserError(f"{str(path)!r} is damaged ({' '.join(str(why).split())[:200]}); restore it from a copy")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: to a temporary file beside it, then renamed; its mode stays."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{UNFINISHED}")
    try:
        with scratch.open("wb") as file:
            if path.is_file():
                shutil.copymode(path, scratch)
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def require_file_name(path: Path) -> None:
    """Refuse to write a file where a folder or a device is, with a UserError that names it."""
    if path.exists() and not path.is_file():
        raise UserError(f"{str(path)!r} is a folder or a device; give the name of a file")


def write_keeping(path: Path, text: str, old: Path | None = None) -> bool:
    """Write a text file whole, and keep the file that it replaces, in the folder ``old`` or beside it.

    A link is replaced, and the file that it leads to stays. Returns False where the file has this content already.
    """
    require_file_name(path)
    if path.exists():
        if path.read_bytes() == text.encode():
            return False
        folder = old or path.parent
        folder.mkdir(parents=True, exist_ok=True)
        names = (folder / f"{path.stem}.old-{number}{path.suffix}" for number in itertools.count(1))
        kept = next(name for name in names if not name.exists())
        shutil.copy2(path, kept)
        logger.info("%s was there already; the old file is kept as %s", path, kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
    return True


def require_free(path: Path) -> None:
    """Refuse a folder that holds anything: a run is never overwritten."""
    if path.exists() and (not path.is_dir() or not all(one.name.startswith(UNBORN) for one in path.iterdir())):
        raise UserError(f"output folder {str(path)!r} is in use; choose another with --out, or delete it")
