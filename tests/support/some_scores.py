"""Scores in one line."""

from engine.token_scores import TokenScores


def some_scores(*logprobs: float) -> TokenScores:
    """Each of `logprobs` as that of the most probable token, without alternatives."""
    return TokenScores(logprobs=logprobs, ranks=(1,) * len(logprobs))
