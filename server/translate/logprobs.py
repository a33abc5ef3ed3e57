"""Log-probabilities as the wire shows them: chat's, plain completions', and the prompt's own.

JSON has no infinity, so the least value told is `LEAST_LOGPROB`.
"""

from collections.abc import Sequence
from json.encoder import encode_basestring_ascii

from engine import TokenLogprob

LEAST_LOGPROB = -9999.0  # what OpenAI tells for a token that has next to no probability


def bounded_logprob(logprob: float) -> float:
    """`logprob`, or the least that the wire tells."""
    return max(logprob, LEAST_LOGPROB)


def chat_logprob(token: TokenLogprob) -> dict[str, object]:
    """One entry of a chat choice's `logprobs.content`."""
    return {**_plain(token), "top_logprobs": [_plain(other) for other in token.top]}


def chat_logprob_json(token: TokenLogprob) -> str:
    """The same as JSON text, written directly: a streamed token may have twenty alternatives."""
    alternatives = "},{".join(map(_plain_members, token.top))
    told = f"[{{{alternatives}}}]" if token.top else "[]"
    return f'{{{_plain_members(token)},"top_logprobs":{told}}}'


def completion_logprobs(
    tokens: Sequence[TokenLogprob | None], offsets: Sequence[int], *, opening: bytes = b"", num_top: int = 0
) -> dict[str, object]:
    """The parallel lists of a plain completion; None stands for the first token of a prompt, `opening`."""
    return {
        "tokens": [spelled(opening if token is None else token.token_bytes) for token in tokens],
        "token_logprobs": [None if token is None else bounded_logprob(token.logprob) for token in tokens],
        "top_logprobs": [_alternatives(token, num_top) for token in tokens] if num_top else None,
        "text_offset": list(offsets),
    }


def prompt_logprobs(
    tokens: Sequence[TokenLogprob | None], num_top: int
) -> list[dict[str, dict[str, object]] | None]:
    """For each token of a prompt, by token id: itself and `num_top` alternatives."""
    return [None if token is None else _by_id(token, num_top) for token in tokens]


def spelled(token_bytes: bytes) -> str:
    r"""The text of a token where text is its name; part of a character as OpenAI writes it: `bytes:\xe2\x80`."""
    try:
        return token_bytes.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token_bytes)


def _plain(token: TokenLogprob) -> dict[str, object]:
    return {
        "token": token.text,
        "logprob": bounded_logprob(token.logprob),
        "bytes": list(token.token_bytes),
    }


def _plain_members(token: TokenLogprob) -> str:
    """The members of `_plain` as JSON text."""
    number = float.__repr__(bounded_logprob(token.logprob))
    listed = ",".join(map(str, token.token_bytes))
    return f'"token":{encode_basestring_ascii(token.text)},"logprob":{number},"bytes":[{listed}]'


def _alternatives(token: TokenLogprob | None, num_top: int) -> dict[str, float] | None:
    """The best tokens and the chosen one, best first; of two with one spelling the better."""
    if token is None:
        return None
    told: dict[str, float] = {}
    for other in (*token.top[:num_top], token):
        told.setdefault(spelled(other.token_bytes), bounded_logprob(other.logprob))
    return told


def _by_id(token: TokenLogprob, num_top: int) -> dict[str, dict[str, object]]:
    return {
        str(other.token_id): {
            "logprob": bounded_logprob(other.logprob),
            "rank": other.rank,
            "decoded_token": other.text,
        }
        for other in (token, *token.top[:num_top])
    }
