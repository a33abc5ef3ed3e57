"""`TokenLogprob`: a token as people see it, with its log-probability, rank and alternatives.

It knows nothing of choices, nor of when a token may be shown.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """One token with the natural logarithm of its probability.

    `text` is the token by itself: a part of a character shows as U+FFFD there, `token_bytes` is exact.
    `rank` is 1 for the most probable token. `top` are the most probable ones in its place, descending,
    as many as were asked for, and the token itself only if it is among them; theirs is empty.
    """

    token_id: int
    text: str
    token_bytes: bytes
    logprob: float
    rank: int = 1
    top: "tuple[TokenLogprob, ...]" = ()
