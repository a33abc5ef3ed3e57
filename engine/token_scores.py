"""`TokenScores`: how probable some tokens were, as it leaves the runner: columns of plain numbers.

It knows neither tensors nor text.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScores:
    """Log-probabilities of consecutive tokens of one sequence, of the raw logits.

    `ranks` are 1 for the most probable token. The alternatives are flat, equally many for each
    token, in descending order:

        logprobs (-0.1, -2.0)   ranks (1, 3)   top_ids (7, 5, 8, 2)   top_logprobs (-0.1, -2.5, -0.4, -1.5)
    """

    logprobs: tuple[float, ...] = ()
    ranks: tuple[int, ...] = ()
    top_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.logprobs)

    @property
    def num_top(self) -> int:
        """Alternatives of each token."""
        return len(self.top_ids) // len(self.logprobs) if self.logprobs else 0

    def first(self, num_tokens: int) -> "TokenScores":
        """Those of the first `num_tokens` tokens."""
        if num_tokens >= len(self.logprobs):
            return self
        num_alternatives = num_tokens * self.num_top
        return TokenScores(
            logprobs=self.logprobs[:num_tokens],
            ranks=self.ranks[:num_tokens],
            top_ids=self.top_ids[:num_alternatives],
            top_logprobs=self.top_logprobs[:num_alternatives],
        )


NO_SCORES = TokenScores()
