from engine.request import FinishReason, Request, SamplingParams
from engine.scheduling.sequence import make_sequences
from tests.support.specs import small_layout


def sequences(prompt_length=10, *, n=1, max_tokens=4, ignore_eos=False):
    layout = small_layout(None, block_size=4)
    request = Request(
        request_id="r",
        prompt_ids=tuple(range(1, prompt_length + 1)),
        sampling=SamplingParams(max_tokens=max_tokens, seed=0, ignore_eos=ignore_eos),
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

    assert sequence.next_chunk(9).draw is None
    assert sequence.next_chunk(10).draw is not None


def test_a_chunk_behind_a_draw_in_flight_takes_its_token():
    (sequence,) = sequences()
    sequence.num_planned, sequence.num_draws_in_flight = 10, 1
    chunk = sequence.next_chunk(1)

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
