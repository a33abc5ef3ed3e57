from hypothesis import given
from hypothesis import strategies as st

from engine.execution.history import (
    MAX_MATCH,
    MAX_PENALTY,
    completing_ids,
    count_tokens,
    repetition_run_penalties,
)
from engine.plan import Draw
from engine.request import SamplingParams


def draw(history, num_prompt=0, **sampling):
    params = {"max_tokens": 1, "seed": 0, "dry_multiplier": 1.0, "dry_base": 2.0, **sampling}
    return Draw(sampling=SamplingParams(**params), choice=0, history=tuple(history), num_prompt=num_prompt)


def enumerated(history, allowed, breakers, dry_range):
    """Length of the longest run that each token would prolong, by comparing every pair of ends."""
    history = list(history)[-dry_range:] if dry_range else list(history)
    longest = {}
    for end in range(len(history) - 1):
        length = 0
        while length <= end and history[end - length] == history[-1 - length]:
            run = history[end - length : end + 1]
            if any(
                tuple(run[i : i + len(breaker)]) == breaker for breaker in breakers for i in range(len(run))
            ):
                break
            length += 1
        if length >= max(1, allowed):
            follower = history[end + 1]
            longest[follower] = max(longest.get(follower, 0), length)
    return {token_id: 2.0 ** (length - allowed) for token_id, length in longest.items()}


@given(
    history=st.lists(st.integers(0, 3), min_size=1, max_size=30),
    allowed=st.integers(0, 4),
    breakers=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple), max_size=2).map(tuple),
    dry_range=st.sampled_from([0, 1, 7, 100]),
)
def test_dry_equals_enumeration(history, allowed, breakers, dry_range):
    found = repetition_run_penalties(
        draw(history, dry_allowed_length=allowed, dry_sequence_breaker_ids=breakers, dry_range=dry_range)
    )

    assert found == enumerated(history, allowed, breakers, dry_range)


def test_a_very_long_run_has_a_penalty_that_stays_finite():
    assert repetition_run_penalties(draw([7] * 3 * MAX_MATCH, dry_base=1000.0)) == {7: MAX_PENALTY}


def test_tokens_are_counted_in_the_output_and_named_also_from_the_prompt():
    assert count_tokens(draw((5, 3, 3, 3, 9), num_prompt=2)) == {5: 0, 3: 2, 9: 1}


def test_an_empty_history_has_no_counts():
    assert count_tokens(draw(())) == {}


def test_a_word_is_about_to_be_completed_when_all_before_its_last_token_stand_at_the_end():
    words = ((1, 2, 3), (2, 4), (1, 5), (6,), (0, 1, 2, 8))

    assert completing_ids((9, 1, 2), words) == [3, 4, 6]
    assert completing_ids((), words) == [6]
