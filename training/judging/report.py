"""Reports an encoder's figures beside those of baselines and the goals, as text and as JSON.

Knows nothing of pictures, or of how figures are computed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from training.judging.exam import HIGH_TOKENS, LOW_TOKENS, Figures

_WIDTH = 12  # of a column


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on a figure.

    share_of_error: if set, the figure's distance from 1 may be at most this share of the best baseline's distance.
    """

    bound: float
    at_least: bool = True
    share_of_error: float | None = None

    def limit(self, baselines: Mapping[str, float | None]) -> float:
        """Returns the bound, or the limit set by the best baseline if that is higher."""
        known = [value for value in baselines.values() if value is not None]
        if self.share_of_error is None or not known:
            return self.bound
        return max(self.bound, 1 - self.share_of_error * (1 - max(known)))

    def met(self, value: float, baselines: Mapping[str, float | None]) -> bool:
        """Returns whether the figure is on the right side of the limit."""
        limit = self.limit(baselines)
        return value >= limit if self.at_least else value < limit


@dataclass(frozen=True, slots=True)
class Line:
    """One figure. value: None if it is not measured. goal: None if there is none."""

    name: str
    goal: Goal | None
    value: float | None
    baselines: Mapping[str, float | None]

    @property
    def met(self) -> bool | None:
        return self.goal.met(self.value, self.baselines) if self.goal and self.value is not None else None


GOALS = {
    "crop": Goal(0.85, share_of_error=0.5),
    f"same picture, {LOW_TOKENS} and {HIGH_TOKENS} tokens": Goal(0.95),
    "different pictures": Goal(0.5, at_least=False),
    "squashed": Goal(0.9),
    "letterboxed": Goal(0.9),
    "rotated": Goal(0.9),
    "recompressed": Goal(0.9),
    "kind": Goal(0.9),
}
"""In the order of the table. Goals named after a probe are for recall at 1, the others for mean cosines and kinds."""


def lines(figures: Figures, baselines: Mapping[str, Figures]) -> list[Line]:
    """Returns a line for each goal, and a line without a goal for each kind."""
    mine, theirs = _named(figures), {name: _named(other) for name, other in baselines.items()}
    return [
        Line(name, GOALS.get(name), value, {other: values.get(name) for other, values in theirs.items()})
        for name, value in mine.items()
    ]


def _named(figures: Figures) -> dict[str, float | None]:
    values: dict[str, float | None] = {
        **figures.recall,
        f"same picture, {LOW_TOKENS} and {HIGH_TOKENS} tokens": figures.same_picture,
        "different pictures": figures.different_pictures,
        "kind": figures.kind,
    }
    return {name: values[name] for name in GOALS} | {f"  {kind}": value for kind, value in figures.kinds.items()}


def as_text(title: str, model: str, table: Sequence[Line]) -> str:
    """Returns a title, a header, and one line per figure."""
    width = max(len(line.name) for line in table)
    text = f"{title}\n" + _row("", width, "goal", [model, *table[0].baselines], "")
    for line in table:
        verdict = {True: "met", False: "missed", None: ""}[line.met]
        numbers = [_number(value) for value in (line.value, *line.baselines.values())]
        text += _row(line.name, width, _goal(line), numbers, verdict)
    return text


def _row(name: str, width: int, goal: str, cells: Sequence[str], verdict: str) -> str:
    columns = "".join(f"{cell:>{_WIDTH}}" for cell in (goal, *cells))
    return f"{name:{width}}{columns}  {verdict}".rstrip() + "\n"


def _goal(line: Line) -> str:
    if line.goal is None:
        return ""
    return f"{'≥' if line.goal.at_least else '<'} {line.goal.limit(line.baselines):.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def as_json(table: Sequence[Line]) -> list[dict[str, object]]:
    """Returns each line's fields, its goal's limit, and whether the goal was met."""
    return [
        {
            "name": line.name.strip(),
            "value": line.value,
            "baselines": dict(line.baselines),
            "goal": line.goal and asdict(line.goal) | {"limit": line.goal.limit(line.baselines)},
            "met": line.met,
        }
        for line in table
    ]
