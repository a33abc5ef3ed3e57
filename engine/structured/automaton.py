"""`Automaton`: where one sequence stands in its grammar. It depends on the tokens drawn so far alone."""

from typing import TYPE_CHECKING

from engine.errors import RequestError

if TYPE_CHECKING:  # loaded by `library` alone, and then only when a grammar is wanted
    from llguidance import LLMatcher

    from engine.structured.library import Library


class Automaton:
    """Follows the tokens of one sequence. Implements the `Constraint` of `engine.scheduling.sequence`.

    The loop's thread advances it between steps, and the thread of `MaskTable` reads it during one.
    """

    def __init__(self, library: "Library", matcher: "LLMatcher") -> None:
        self.library = library
        self.matcher = matcher

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow any more but the end."""
        return self.matcher.is_stopped() and not self.matcher.is_error()

    @property
    def failure(self) -> RequestError | None:
        """Why it can follow no further: the grammar is beyond a bound of the library's; None while it can."""
        if not self.matcher.is_error():
            return None
        reason = self.matcher.get_error().splitlines()[0][:400]
        return RequestError(f"the constraint on the output became too complex to follow: {reason}", "grammar")

    def advance(self, token_id: int) -> None:
        """Take the next token; one that the mask did not allow is a failure."""
        self.matcher.consume_token(token_id)
