import pytest

from engine.request import FinishReason, Request, SamplingParams
from engine.scheduling.sequence import make_sequences
from tests.support.fake_constraint import FakeConstraint
from tests.support.specs import small_layout

NO_EOS = frozenset()
EOS = frozenset({0})


def sequences(prompt_length=10, *, n=1, max_tokens=4, **sampling):
    layout = small_layout(None, block_size=4)
    request = Request(
        request_id="r",
        prompt_ids=tuple(range(1, prompt_length + 1)),
        sampling=SamplingParams(max_tokens=max_tokens, seed=0, **sampling),
        num_choices=n,
    )
    return make_sequences(request, 7, [layout.new_tables() for _ in range(n)])


def test_the_shared_part_is_whole_blocks_short_of_the_last_token():
    assert [sequences(length)[0].shared_tokens for length in (1, 4, 5, 8, 9)] == [0, 0, 4, 4, 8]


def test_later_choices_follow_the_first():
    leader, *followers = sequences(n=3)

    assert leader.followers == followers
    assert all(follower.awaits_leader for follower in followers)


def test_choices_of_a_prompt_without_a_full_block_go_alone():
    first, second = sequences(3, n=2)

    assert not first.followers
    assert not second.awaits_leader


def test_an_unfinished_prompt_chunk_draws_nothing():
    (sequence,) = sequences()

    assert sequence.next_chunk(9, NO_EOS).draw is None
    assert sequence.next_chunk(10, NO_EOS).draw is not None


def test_a_chunk_behind_a_draw_in_flight_takes_its_token():
    (sequence,) = sequences()
    sequence.num_planned, sequence.num_draws_in_flight = 10, 1
    chunk = sequence.next_chunk(1, NO_EOS)

    assert chunk.takes_last_draw
    assert chunk.token_ids == ()
    assert chunk.draw is not None


def test_the_last_allowed_token_is_never_computed():
    (sequence,) = sequences(max_tokens=1)
    sequence.num_planned, sequence.num_draws_in_flight = 10, 1

    assert sequence.num_to_plan == 0


def test_an_end_of_sequence_token_ends_with_stop():
    (sequence,) = sequences()
    sequence.token_ids.append(0)

    assert sequence.finish_reason(frozenset({0})) is FinishReason.STOP


def test_ignored_end_of_sequence_goes_on_to_max_tokens():
    (sequence,) = sequences(ignore_eos=True, max_tokens=2)
    sequence.token_ids.append(0)

    assert sequence.finish_reason(frozenset({0})) is None
    sequence.token_ids.append(0)
    assert sequence.finish_reason(frozenset({0})) is FinishReason.LENGTH


def test_a_stop_token_ends_with_stop():
    (sequence,) = sequences(stop_token_ids=(5,))
    sequence.token_ids.append(5)

    assert sequence.finish_reason(EOS) is FinishReason.STOP


def test_tokens_that_end_are_banned_and_end_nothing_before_min_tokens():
    (sequence,) = sequences(stop_token_ids=(5,), min_tokens=2)
    banned = [sequence.next_chunk(10, EOS).draw.banned_ids]
    told = []
    for token_id in (0, 7, 0):
        sequence.token_ids.append(token_id)
        sequence.num_planned = len(sequence.token_ids) - 1
        banned.append(sequence.next_chunk(1, EOS).draw.banned_ids)
        told.append(sequence.finish_reason(EOS))

    assert banned == [(0, 5), (0, 5), (), ()]
    assert told == [None, None, FinishReason.STOP]


def test_an_end_of_sequence_that_ends_nothing_is_not_banned():
    (sequence,) = sequences(min_tokens=1, ignore_eos=True)

    assert sequence.next_chunk(10, EOS).draw.banned_ids == ()


def test_a_draw_carries_no_history_unless_it_looks_back():
    (sequence,) = sequences(min_tokens=2, bad_words_ids=((3,),))

    assert sequence.next_chunk(10, EOS).draw.history == ()


def test_a_draw_that_looks_back_carries_what_it_needs():
    found = []
    for sampling in (
        {"presence_penalty": 1.0},
        {"repetition_penalty": 1.5},
        {"dry_multiplier": 1.0, "dry_range": 3},
        {"dry_multiplier": 1.0, "dry_range": 30},
        {"bad_words_ids": ((1, 2, 3), (1, 2))},
    ):
        (sequence,) = sequences(4, **sampling)
        sequence.token_ids += [8, 9]
        draw = sequence.next_chunk(6, EOS).draw
        found.append((draw.history, draw.num_prompt))

    assert found == [
        ((8, 9), 0),
        ((1, 2, 3, 4, 8, 9), 4),
        ((4, 8, 9), 1),
        ((1, 2, 3, 4, 8, 9), 4),
        ((8, 9), 0),
    ]


def test_a_sequence_that_looks_back_waits_for_the_token_in_flight():
    told = []
    for sampling in ({}, {"frequency_penalty": 0.5}):
        (sequence,) = sequences(**sampling)
        sequence.num_planned, sequence.num_draws_in_flight = 10, 1
        told.append(sequence.num_to_plan)

    assert told == [1, 0]


def test_a_chunks_last_row_scores_the_first_token_of_the_next():
    (sequence,) = sequences(10, prompt_logprobs=2)
    first = sequence.next_chunk(6, EOS)
    sequence.num_planned = 6
    second = sequence.next_chunk(4, EOS)

    assert (first.score_from, first.score_ids, first.num_score_top) == (0, (2, 3, 4, 5, 6, 7), 2)
    assert (second.score_from, second.score_ids) == (6, (8, 9, 10))


def test_what_was_scored_is_not_scored_again():
    (sequence,) = sequences(10, prompt_logprobs=0)
    sequence.num_scored = 4

    assert sequence.next_chunk(6, EOS).score_ids == (6, 7)


def test_one_choice_scores_the_prompt_for_all():
    first, second = sequences(3, n=2, prompt_logprobs=0)

    assert first.next_chunk(3, EOS).score_ids == (2, 3)
    assert second.next_chunk(3, EOS).score_ids == ()


def test_a_sequence_that_may_draw_nothing_ends_with_its_prompt():
    (sequence,) = sequences(1, max_tokens=0, prompt_logprobs=0)
    chunk = sequence.next_chunk(sequence.num_to_plan, EOS)
    sequence.num_computed = chunk.stop

    assert chunk.draw is None
    assert sequence.append((), EOS) == (0, FinishReason.LENGTH)


def constrained(length=99, **sampling):
    (sequence,) = sequences(grammar="g", **sampling)
    sequence.constraint = FakeConstraint(length=length)
    return sequence


def test_a_constraint_follows_each_token_and_masks_each_draw():
    sequence = constrained()
    sequence.append((5, 6), EOS)

    assert sequence.constraint.taken == [5, 6]
    assert sequence.next_chunk(12, EOS).draw.is_masked


def test_a_sequence_without_one_is_not_masked():
    (sequence,) = sequences()

    assert not sequence.next_chunk(10, EOS).draw.is_masked
    assert sequence.failure is None


@pytest.mark.parametrize("sampling", [{"ignore_eos": True}, {"min_tokens": 4}, {"max_tokens": 2}])
def test_a_complete_constraint_ends_the_sequence_whatever_else_was_asked(sampling):
    assert constrained(2, **sampling).append((5, 6, 7), EOS) == (2, FinishReason.STOP)


def test_an_end_that_would_be_passed_over_is_not_to_be_drawn():
    assert constrained(ignore_eos=True).next_chunk(10, EOS).draw.banned_ids == (0,)
    assert constrained().next_chunk(10, EOS).draw.banned_ids == ()


def test_the_next_draw_waits_for_the_token_that_the_constraint_must_see():
    sequence = constrained()
    sequence.num_planned, sequence.num_draws_in_flight = 10, 1

    assert sequence.num_to_plan == 0
