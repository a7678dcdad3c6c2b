"""Let Hypothesis choose calls by weight.

It has rules of its own for that, but turns off about half of them in each life, at random, so that lives
in which orders are claimed, ended and claimed again get rare. So there is one rule, which makes a call.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

Strategies = dict[str, st.SearchStrategy[Any]]


@dataclass(frozen=True)
class Call:
    """A machine's method with its arguments, readable in the script of a life."""

    name: str
    arguments: dict[str, Any]

    def make(self, machine: Any) -> None:
        """Make it."""
        getattr(machine, self.name)(**self.arguments)

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"Call({self.name}: {given})"


def call(weight: int = 1, **arguments: st.SearchStrategy[Any]) -> Callable[[Any], Any]:
    """Mark a method as one that is to be called with such arguments, `weight` times as often as others."""

    def mark(method: Any) -> Any:
        method.weight, method.arguments = weight, arguments
        return method

    return mark


def calls(methods: Iterable[Any], *, favoured: Sequence[str] = ()) -> st.SearchStrategy[Call]:
    """Draw calls of the methods that are marked; those of `favoured` names make up a third of them."""
    marked = [method for method in methods if hasattr(method, "weight")]
    # Hypothesis likes the first best.
    marked.sort(key=lambda method: (-method.weight, method.__name__))
    weighted = [method for method in marked for _ in range(method.weight)]
    favourites = [method for method in marked if method.__name__ in favoured]
    assert len(favourites) == len(favoured), f"there is not each of the calls {favoured}"
    weighted += [method for method in favourites for _ in range(len(weighted) // (2 * len(favoured)))]
    return st.sampled_from(weighted).flatmap(
        lambda method: st.fixed_dictionaries(method.arguments).map(lambda given: Call(method.__name__, given))
    )


def made_by(strategy: st.SearchStrategy[Call]) -> Any:
    """Return the rule that makes the calls which the strategy draws."""

    @rule(call=strategy)
    def make(machine: Any, call: Call) -> None:
        call.make(machine)

    return make
