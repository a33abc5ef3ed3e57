"""`TokenLogprob`: a token as people see it, with its log-probability, rank and alternatives.

It knows nothing of choices, nor of when a token may be shown.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from engine.token_scores import TokenScores

if TYPE_CHECKING:
    from engine.text.tokenizer import Tokenizer


class TokenLogprob(NamedTuple):
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


def name_tokens(
    tokenizer: "Tokenizer", token_ids: Sequence[int], scores: TokenScores
) -> tuple[TokenLogprob, ...]:
    """Each of `token_ids` with its scores, of which `scores` has one for each."""
    num_top = scores.num_top
    named = []
    for index, token_id in enumerate(token_ids):
        places = range(index * num_top, (index + 1) * num_top)
        # A token's rank as an alternative is its place: equals come in some order.
        top = tuple(
            _name(tokenizer, scores.top_ids[place], scores.top_logprobs[place], place - places.start + 1)
            for place in places
        )
        named.append(_name(tokenizer, token_id, scores.logprobs[index], scores.ranks[index], top))
    return tuple(named)


def _name(
    tokenizer: "Tokenizer", token_id: int, logprob: float, rank: int, top: tuple[TokenLogprob, ...] = ()
) -> TokenLogprob:
    token_bytes = tokenizer.token_bytes(token_id)
    return TokenLogprob(
        token_id=token_id,
        text=token_bytes.decode("utf-8", "replace"),
        token_bytes=token_bytes,
        logprob=logprob,
        rank=rank,
        top=top,
    )
