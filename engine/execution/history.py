"""What the tokens so far say about the next one: repeated tokens, repeated runs, words about to be completed.

Plain integers on the host, one sequence at a time; only sequences that ask for it pay for it. It
knows neither logits nor devices.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.plan import Draw
from engine.request import SamplingParams

# A repeated run longer than this counts as this long: its penalty has long decided the matter.
MAX_MATCH = 64
MAX_PENALTY = 1e4  # finite, so that logits stay so

Tokens = npt.NDArray[np.int64]


def count_tokens(draw: Draw) -> dict[int, int]:
    """How often each token of prompt and output is in the output.

    Only the output is named where the draw's history holds nothing of the prompt.
    """
    return dict.fromkeys(draw.history, 0) | Counter(draw.history[draw.num_prompt :])


def counts_tokens(draw: Draw) -> bool:
    """Whether any penalty needs to know `count_tokens`."""
    own = draw.sampling
    return bool(own.presence_penalty or own.frequency_penalty or own.repetition_penalty != 1.0)


def count_penalties(sampling: SamplingParams, counts: dict[int, int]) -> dict[int, float]:
    """What presence and frequency penalties take from each token of the output."""
    presence, frequency = sampling.presence_penalty, sampling.frequency_penalty
    if not (presence or frequency):
        return {}
    return {token_id: presence + count * frequency for token_id, count in counts.items() if count}


def banned_ids(draw: Draw) -> list[int]:
    """The tokens that must not be drawn, words about to be completed among them; ascending."""
    words = draw.sampling.bad_words_ids
    return sorted({*draw.banned_ids, *(completing_ids(draw.history, words) if words else ())})


def completing_ids(history: Sequence[int], words: Sequence[tuple[int, ...]]) -> list[int]:
    """Last tokens of those `words` of which the history ends with all the others, ascending.

    A word of one token is always about to be completed.
    """
    found = set()
    for word in words:
        num_before = len(word) - 1
        if not num_before or tuple(history[-num_before:]) == word[:-1]:
            found.add(word[-1])
    return sorted(found)


def repetition_run_penalties(draw: Draw) -> dict[int, float]:
    """What DRY takes from each token that would prolong a repetition.

    Where the newest L tokens stand somewhere earlier too, the token that followed them there would
    make the run longer: it loses multiplier * base ** (L - allowed_length) if L reaches
    `dry_allowed_length`; the longest such run counts. A run never reaches over a sequence breaker.

        history 5 6 7 9 5 6 7, allowed 2:    token 9 loses multiplier * base ** 1

    Source: DRY as proposed in text-generation-webui, pull request 5677.
    """
    sampling = draw.sampling
    history = np.array(draw.history, dtype=np.int64)
    if sampling.dry_range:
        history = history[-sampling.dry_range :]
    limit = min(MAX_MATCH, _num_since_breaker(history, sampling))
    penalties: dict[int, float] = {}
    for length, followers in _runs(history, limit):
        if length >= max(1, sampling.dry_allowed_length):
            growth = sampling.dry_base ** (length - sampling.dry_allowed_length)
            taken = min(sampling.dry_multiplier * growth, MAX_PENALTY)
            penalties.update(dict.fromkeys(followers, taken))  # lengths ascend: the longest stays
    return penalties


def _num_since_breaker(history: Tokens, sampling: SamplingParams) -> int:
    """How many of the newest tokens hold no whole sequence breaker."""
    last_start = -1
    for breaker in sampling.dry_sequence_breaker_ids:
        num_starts = len(history) - len(breaker) + 1
        if num_starts <= 0:
            continue
        matches = np.ones(num_starts, dtype=bool)
        for offset, token_id in enumerate(breaker):
            matches &= history[offset : offset + num_starts] == token_id
        starts = np.flatnonzero(matches)
        if len(starts):
            last_start = max(last_start, int(starts[-1]))
    return len(history) - last_start - 1


def _runs(history: Tokens, limit: int) -> list[tuple[int, list[int]]]:
    """For each L up to `limit`: the tokens that followed earlier copies of the newest L tokens."""
    newest = len(history) - 1
    ends = np.arange(newest)  # positions where an earlier copy may end
    runs = []
    for length in range(1, limit + 1):
        ends = ends[ends >= length - 1]
        ends = ends[history[ends - length + 1] == history[newest - length + 1]]
        if not len(ends):
            break
        runs.append((length, np.unique(history[ends + 1]).tolist()))
    return runs
