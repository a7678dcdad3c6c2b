"""What was measured: our figure beside the one that it is compared with, in turns."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

TURNS = 3

Figure = TypeVar("Figure")


@dataclass(frozen=True, slots=True)
class Measurement:
    """A case of a question: our figures and the other's, turn by turn.

    The ratio of their medians is to be `bound` at least, or at most where less is better.
    """

    question: str
    case: str
    unit: str
    ours: list[float]
    against: str
    others: list[float]
    bound: float
    less_is_better: bool = False

    @property
    def ratio(self) -> float:
        """Ours by the other's, each the median of its turns."""
        return statistics.median(self.ours) / statistics.median(self.others)

    @property
    def met(self) -> bool:
        """Whether the bound is kept."""
        return self.ratio <= self.bound if self.less_is_better else self.ratio >= self.bound

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f"at {'most' if self.less_is_better else 'least'} {self.bound:g}"

    def document(self) -> dict[str, Any]:
        """Return it as JSON takes it, figures to the last digit that says anything."""
        return {
            "question": self.question,
            "case": self.case,
            "unit": self.unit,
            "ours": [_rounded(value) for value in self.ours],
            "against": self.against,
            "others": [_rounded(value) for value in self.others],
            "ratio": round(self.ratio, 3),
            "bound": self.bound,
            "wanted": self.wanted,
            "met": self.met,
        }

    def line(self) -> str:
        """Return it as one line for a terminal."""
        ours, others = (
            f"{shown(statistics.median(each))} ({shown(min(each))} to {shown(max(each))})"
            for each in (self.ours, self.others)
        )
        verdict = "met" if self.met else "MISSED"
        return (
            f"{self.question:8} {self.case:34} {ours} {self.unit} / {others} {self.against}"
            f" = {self.ratio:.2f}, {self.wanted}: {verdict}"
        )


def shown(value: float) -> str:
    """Return a figure with as many digits as say anything."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def in_turns(ours: Callable[[], Figure], other: Callable[[], Figure]) -> tuple[list[Figure], list[Figure]]:
    """Measure one, then the other, `TURNS` times."""
    turns = [(other(), ours()) for _ in range(TURNS)]
    return [ours for _, ours in turns], [other for other, _ in turns]
