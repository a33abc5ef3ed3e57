"""`Budget`: what one rendering of a chat template may cost: rounds of its loops, characters, seconds.

jinja2's sandbox bounds `range` alone; loops within loops over long messages would run for minutes. It
knows nothing of messages.
"""

from collections.abc import Callable, Iterable, Iterator

from jinja2 import TemplateError, nodes, pass_context
from jinja2.runtime import Context

COUNTED = "_counted"
"""The name of the filter around what a loop goes over, and of the variable that holds the budget."""

MAX_ROUNDS = 1_000_000
MAX_CHARACTERS = 64 << 20
MAX_SECONDS = 10.0


class Budget:
    """Counts what a rendering costs; TemplateError as soon as it is too much."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._deadline_s = clock() + MAX_SECONDS
        self._num_rounds = 0
        self._num_characters = 0

    def count_round(self) -> None:
        """A loop goes round once more."""
        self._num_rounds += 1
        if self._num_rounds > MAX_ROUNDS:
            raise TemplateError(f"its loops go round more than {MAX_ROUNDS} times")
        self._check_time()

    def counted(self, pieces: Iterable[str]) -> Iterator[str]:
        """The pieces of what is rendered, one by one."""
        for piece in pieces:
            self._num_characters += len(piece)
            if self._num_characters > MAX_CHARACTERS:
                raise TemplateError(f"it writes more than {MAX_CHARACTERS} characters")
            self._check_time()
            yield piece

    def _check_time(self) -> None:
        if self._clock() > self._deadline_s:
            raise TemplateError(f"it takes longer than {MAX_SECONDS:g} s")


def with_counted_loops(template: nodes.Template) -> nodes.Template:
    """`template`, each loop of which counts its rounds; in place."""
    for loop in list(template.find_all(nodes.For)):
        loop.iter = nodes.Filter(loop.iter, COUNTED, [], [], None, None, lineno=loop.lineno)
    return template


@pass_context
def count_rounds(context: Context, values: Iterable[object]) -> Iterator[object]:
    """The filter COUNTED: `values`, each of which is a round."""
    budget = context[COUNTED]
    for value in values:
        budget.count_round()
        yield value
