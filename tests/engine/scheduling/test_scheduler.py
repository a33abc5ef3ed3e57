from engine.cache.pool import CachePool
from engine.config import SchedulingConfig
from engine.errors import StepError
from engine.prefix_report import MissReason
from engine.request import FinishReason, Request, SamplingParams
from engine.scheduling.scheduler import Scheduler
from engine.scheduling.sequence import SequenceState, make_sequences
from tests.support.fake_constraint import FakeConstraint
from tests.support.fake_runner import FakeRunner, next_token
from tests.support.manual_clock import ManualClock
from tests.support.specs import small_layout

OF_REQUEST = ("cache_salt", "priority", "caller", "wants_prefix_report")


class Bench:
    """A scheduler with a fake runner, driven step by step."""

    def __init__(self, *windows, num_blocks=64, block_size=4, **scheduling):
        scheduling = {"max_step_tokens": 8, "max_chunk_tokens": 8, "max_running": 4, **scheduling}
        self.layout = small_layout(
            *windows,
            num_blocks=num_blocks,
            block_size=block_size,
            max_chunk_tokens=scheduling["max_chunk_tokens"],
        )
        self.pool = CachePool(self.layout)
        self.clock = ManualClock()
        self.scheduler = Scheduler(SchedulingConfig(**scheduling), self.pool, frozenset({0}), self.clock.now)
        self.runner = FakeRunner(self.layout)
        self.next_id = 0

    def add(self, prompt_length, *, max_tokens=4, n=1, prompt=None, **asked):
        of_request = {name: asked.pop(name) for name in OF_REQUEST if name in asked}
        request = Request(
            request_id=f"r{self.next_id}",
            prompt_ids=prompt or tuple(range(1, prompt_length + 1)),
            sampling=SamplingParams(max_tokens=max_tokens, seed=0, ignore_eos=True, **asked),
            num_choices=n,
            **of_request,
        )
        made = make_sequences(request, self.next_id, [self.layout.new_tables() for _ in range(n)])
        for sequence in made:
            self.runner.expect(sequence.sequence_id, request.prompt_ids)
        self.next_id += n
        self.scheduler.add(made)
        return made

    def step(self):
        plan = self.scheduler.plan()
        updates = self.scheduler.commit(plan, self.runner.finish(self.runner.begin(plan)))
        return {chunk.sequence_id: (chunk.start, chunk.stop) for chunk in plan.chunks}, updates


def run_all(bench):
    """Step until everything has ended; fail when nothing is planned though there is work."""
    while bench.scheduler.has_work:
        chunks, _ = bench.step()
        assert chunks, "a step without work"


def test_a_long_prompt_is_computed_in_chunks():
    bench = Bench(None)
    bench.add(20)

    assert [bench.step()[0] for _ in range(3)] == [{0: (0, 8)}, {0: (8, 16)}, {0: (16, 20)}]


def test_a_decode_never_waits_for_a_long_prompt():
    bench = Bench(None)
    bench.add(2)
    bench.step()
    bench.add(30)

    assert bench.step()[0] == {0: (2, 3), 1: (0, 7)}
    assert bench.step()[0] == {0: (3, 4), 1: (7, 14)}


def test_a_step_that_decodes_takes_few_tokens_of_prompts():
    bench = Bench(None, max_mixed_tokens=3)
    bench.add(2)
    bench.step()
    bench.add(30)

    assert bench.step()[0] == {0: (2, 3), 1: (0, 3)}
    assert bench.step()[0] == {0: (3, 4), 1: (3, 6)}


def test_a_step_of_prompts_alone_takes_as_many_tokens_as_ever():
    bench = Bench(None, max_mixed_tokens=3)
    bench.add(20)

    assert [bench.step()[0] for _ in range(3)] == [{0: (0, 8)}, {0: (8, 16)}, {0: (16, 20)}]


def test_prompts_share_a_step_under_the_token_budget():
    bench = Bench(None)
    bench.add(3)
    bench.add(9)

    assert bench.step()[0] == {0: (0, 3), 1: (0, 5)}


def test_no_more_than_max_running_run():
    bench = Bench(None, max_running=2)
    for _ in range(3):
        bench.add(1)

    assert set(bench.step()[0]) == {0, 1}
    assert bench.scheduler.load.num_waiting == 1


def test_the_choices_of_a_request_compute_the_shared_prompt_once():
    bench = Bench(None, max_step_tokens=16, max_chunk_tokens=16)
    bench.add(10, n=3)

    assert bench.step()[0] == {0: (0, 8)}
    assert bench.pool.num_free_blocks == 62
    assert bench.step()[0] == {0: (8, 10), 1: (8, 10), 2: (8, 10)}
    assert bench.pool.num_free_blocks == 59


def test_the_choices_of_a_windowed_request_share_its_window():
    bench = Bench(6, max_step_tokens=16, max_chunk_tokens=4)
    sequences = bench.add(22, n=2)
    for _ in range(20):
        bench.step()

    assert all(sequence.is_finished for sequence in sequences)
    assert [tuple(s.token_ids[22:]) for s in sequences] == [
        _without_eos(sequences[0].request.prompt_ids, choice, 4) for choice in (0, 1)
    ]


def test_the_youngest_is_preempted_for_the_oldest():
    bench = Bench(None, num_blocks=4)
    old, young = *bench.add(6, max_tokens=10), *bench.add(1, max_tokens=10)
    for _ in range(20):
        bench.step()
        if young.state is SequenceState.WAITING:
            break

    assert young.state is SequenceState.WAITING
    assert not young.holds_blocks
    assert old.state is SequenceState.RUNNING


def test_a_preempted_sequence_ends_with_the_tokens_it_would_have_had():
    bench = Bench(None, num_blocks=4)
    sequences = *bench.add(6, max_tokens=10), *bench.add(1, max_tokens=10)
    while bench.scheduler.has_work:
        bench.step()

    for sequence in sequences:
        prompt = sequence.request.prompt_ids
        assert tuple(sequence.token_ids[len(prompt) :]) == _without_eos(prompt, 0, 10)


def test_abort_ends_every_choice_and_frees_its_blocks():
    bench = Bench(None)
    bench.add(10, n=2)
    bench.step()
    bench.scheduler.abort("r0")

    assert not bench.scheduler.has_work
    assert bench.pool.num_free_blocks == 64


def test_finish_ends_one_choice():
    bench = Bench(None, max_step_tokens=16)
    first, second = bench.add(3, n=2)
    bench.step()
    bench.scheduler.finish("r0", 0)

    assert first.is_finished
    assert not second.is_finished


def test_a_failed_step_ends_its_sequences_and_no_other():
    bench = Bench(None, max_step_tokens=4)
    bench.add(4)
    (other,) = bench.add(4)
    plan = bench.scheduler.plan()
    updates = bench.scheduler.fail(plan, StepError("planted"))

    assert updates.failures == ((0, StepError("planted")),)
    assert not other.is_finished
    assert bench.pool.num_free_blocks == 64


def test_the_end_is_told_with_its_reason():
    bench = Bench(None)
    bench.add(1, max_tokens=1)
    _, updates = bench.step()

    assert updates.finish_reasons == (FinishReason.LENGTH,)
    assert not bench.scheduler.has_work


def test_with_look_ahead_the_next_token_is_planned_before_it_is_known():
    bench = Bench(None, steps_in_flight=2)
    bench.add(3)
    first = bench.scheduler.plan()
    handle = bench.runner.begin(first)
    second = bench.scheduler.plan()
    bench.runner.begin(second)

    assert second.chunks[0].takes_last_draw
    assert bench.scheduler.commit(first, bench.runner.finish(handle)).num_tokens == (1,)


def test_blocks_of_an_ended_sequence_stay_until_its_last_step_is_committed():
    bench = Bench(None, steps_in_flight=2)
    bench.add(3)
    first = bench.scheduler.plan()
    handle = bench.runner.begin(first)
    second = bench.scheduler.plan()
    later = bench.runner.begin(second)
    bench.scheduler.abort("r0")
    bench.scheduler.commit(first, bench.runner.finish(handle))

    assert bench.pool.num_free_blocks == 63
    bench.scheduler.commit(second, bench.runner.finish(later))
    assert bench.pool.num_free_blocks == 64


def test_waiting_choices_that_hold_a_shared_prompt_do_not_block_an_older_sequence():
    bench = Bench(None, num_blocks=12, block_size=1, max_step_tokens=64, max_chunk_tokens=4, max_running=2)
    bench.add(4, max_tokens=1, n=2)
    bench.add(11, max_tokens=1, n=2)
    run_all(bench)

    assert bench.pool.num_free_blocks == 12


def test_a_running_sequence_takes_no_blocks_from_an_older_waiting_one():
    bench = Bench(None, num_blocks=6, max_step_tokens=64, max_chunk_tokens=8, max_running=1)
    _, follower = bench.add(10, n=2, max_tokens=12)
    bench.step()
    bench.step()
    held = [table.num_held for table in follower.tables]

    assert held == [2]
    run_all(bench)
    assert follower.is_finished


def test_a_prompt_computed_before_is_computed_from_its_last_block_on():
    bench = Bench(None)
    bench.add(20)
    run_all(bench)
    (again,) = bench.add(20)

    assert bench.step()[0] == {1: (16, 20)}
    assert again.num_cached == 16


def test_generated_tokens_are_cached_like_the_prompt():
    bench = Bench(None)
    (first,) = bench.add(10, max_tokens=8)
    run_all(bench)
    turn = tuple(first.token_ids)
    request = Request(
        request_id="turn", prompt_ids=(*turn, 5, 6), sampling=SamplingParams(max_tokens=1, seed=0)
    )
    (second,) = make_sequences(request, 9, [bench.layout.new_tables()])
    bench.runner.expect(9, request.prompt_ids)
    bench.scheduler.add((second,))
    bench.step()

    assert second.num_cached == 16


def test_a_windowed_prompt_is_found_again_long_after_it_left_the_window():
    bench = Bench(6)
    bench.add(20, max_tokens=40)
    run_all(bench)
    (again,) = bench.add(20)
    bench.step()

    assert again.num_cached == 16


def test_identical_prompts_arriving_together_are_computed_once():
    bench = Bench(None, max_step_tokens=64, max_chunk_tokens=8)
    for _ in range(3):
        bench.add(20)
    computed = []
    while bench.scheduler.has_work:
        chunks, _ = bench.step()
        computed += [chunk for chunk in chunks.values() if chunk[1] <= 20]

    assert sorted(computed) == [(0, 8), (8, 16), (16, 20), (16, 20), (16, 20)]


def test_what_one_tenant_cached_is_not_for_another():
    bench = Bench(None)
    bench.add(20, cache_salt="one")
    run_all(bench)
    (other,) = bench.add(20, cache_salt="two")
    bench.step()

    assert other.num_cached == 0


def test_a_preempted_sequence_finds_what_it_had_computed():
    bench = Bench(None, num_blocks=16)
    (sequence,) = bench.add(20, max_tokens=8)
    for _ in range(4):
        bench.step()
    bench.scheduler._preempt_when_idle(sequence, ask=True)

    assert bench.step()[0][0][0] >= 16


def test_the_lower_priority_is_admitted_first():
    bench = Bench(None, max_running=1)
    bench.add(1, priority=5)
    bench.add(1, priority=-5)
    bench.add(1)

    order = []
    while bench.scheduler.has_work:
        order += [sequence_id for sequence_id in bench.step()[0] if sequence_id not in order]
    assert order == [1, 2, 0]


def test_a_sequence_preempted_within_its_prompt_does_not_wait_for_itself():
    bench = Bench(None)
    (sequence,) = bench.add(24)
    bench.step()
    bench.scheduler._preempt_when_idle(sequence, ask=True)

    run_all(bench)
    assert sequence.num_output_tokens == 4


def test_the_higher_priority_is_preempted_though_it_came_first():
    bench = Bench(None, num_blocks=4)
    later, sooner = *bench.add(1, max_tokens=10, priority=1), *bench.add(6, max_tokens=10)
    for _ in range(20):
        bench.step()
        if later.state is SequenceState.WAITING:
            break

    assert later.state is SequenceState.WAITING
    assert sooner.state is SequenceState.RUNNING


def test_a_scored_prompt_is_told_chunk_by_chunk():
    bench = Bench(None)
    bench.add(12, prompt_logprobs=0)
    first, second = bench.step()[1], bench.step()[1]

    assert [scores.logprobs for _, scores in first.prompt_scores] == [tuple(-float(i) for i in range(2, 10))]
    assert (first.num_tokens, second.num_tokens) == ((0,), (1,))
    assert [scores.logprobs for _, scores in second.prompt_scores] == [(-10.0, -11.0, -12.0)]


def test_scoring_alone_ends_with_the_prompt_and_without_a_token():
    bench = Bench(None)
    bench.add(4, max_tokens=0, prompt_logprobs=0)
    _, updates = bench.step()

    assert (updates.num_tokens, updates.finish_reasons) == ((0,), (FinishReason.LENGTH,))
    assert not bench.scheduler.has_work
    assert bench.pool.num_free_blocks == 64


def test_with_look_ahead_who_must_know_the_last_token_waits_and_others_do_not():
    bench = Bench(None, steps_in_flight=2)
    bench.add(3, frequency_penalty=1.0)
    bench.add(3)
    first = bench.scheduler.plan()
    handle = bench.runner.begin(first)
    second = bench.scheduler.plan()
    bench.scheduler.commit(first, bench.runner.finish(handle))
    third = bench.scheduler.plan()

    assert [chunk.sequence_id for chunk in second.chunks] == [1]
    assert [(chunk.sequence_id, chunk.takes_last_draw) for chunk in third.chunks] == [(0, False), (1, True)]


def test_who_has_waited_long_goes_before_a_better_priority():
    bench = Bench(None, max_running=1, priority_ageing_s=10.0)
    bench.add(1, priority=2)
    bench.clock.jump(21.0)
    bench.add(1, priority=0)

    assert set(bench.step()[0]) == {0}


def test_a_queue_full_of_one_callers_requests_does_not_delay_anothers_first():
    bench = Bench(None, max_running=2, max_step_tokens=32)
    for _ in range(100):
        bench.add(2, max_tokens=1, caller="greedy")
    bench.step()
    bench.add(2, max_tokens=1, caller="modest")

    assert 100 in bench.step()[0]


def test_callers_that_ask_for_ever_are_served_alike():
    bench = Bench(None, max_running=2, max_step_tokens=32, max_chunk_tokens=16)
    served = {"long": 0, "short": 0}
    for caller, number, length, max_tokens in (("long", 60, 16, 8), ("short", 300, 1, 1)):
        for _ in range(number):
            bench.add(length, max_tokens=max_tokens, caller=caller, cache_salt=str(bench.next_id))
    for _ in range(100):
        chunks, updates = bench.step()
        for sequence_id, (start, stop) in chunks.items():
            caller = "long" if sequence_id < 60 else "short"
            length = 16 if caller == "long" else 1
            served[caller] += max(0, min(stop, length) - start)
        for sequence_id, num_tokens in zip(updates.sequence_ids, updates.num_tokens, strict=True):
            served["long" if sequence_id < 60 else "short"] += 2 * num_tokens

    assert bench.scheduler.load.num_waiting > 0
    assert abs(served["long"] - served["short"]) <= 2 * (16 + 2 * 8)


def test_under_guaranteed_admission_the_next_waits_for_the_worst_case():
    bench = Bench(None, num_blocks=4, admission="guaranteed")
    first, second = *bench.add(6, max_tokens=10), *bench.add(1, max_tokens=10)
    bench.step()

    assert (first.state, second.state) == (SequenceState.RUNNING, SequenceState.WAITING)
    run_all(bench)
    assert bench.scheduler.load.num_preemptions == 0


def test_under_guaranteed_admission_choices_that_do_not_fit_beside_each_other_take_turns():
    bench = Bench(None, num_blocks=16, admission="guaranteed", max_step_tokens=16, max_chunk_tokens=16)
    sequences = bench.add(10, n=4, max_tokens=20)
    run_all(bench)

    assert [tuple(s.token_ids[10:]) for s in sequences] == [
        _without_eos(sequences[0].request.prompt_ids, choice, 20) for choice in range(4)
    ]
    assert bench.scheduler.load.num_preemptions == 0


def test_optimistic_admission_lets_more_begin():
    bench = Bench(None, num_blocks=4)
    first, second = *bench.add(6, max_tokens=10), *bench.add(1, max_tokens=10)
    bench.step()

    assert (first.state, second.state) == (SequenceState.RUNNING, SequenceState.RUNNING)
    run_all(bench)
    assert bench.scheduler.load.num_preemptions == 1


def test_who_was_preempted_goes_on_before_anybody_new():
    bench = Bench(None, num_blocks=4)
    bench.add(6, max_tokens=10, caller="a")
    (young,) = bench.add(1, max_tokens=10, caller="a")
    while young.state is not SequenceState.WAITING or not young.has_begun:
        bench.step()
    bench.add(1, caller="b")
    order = []
    while bench.scheduler.has_work:
        order += [sequence_id for sequence_id in bench.step()[0] if sequence_id not in order]

    assert order == [0, 1, 2]


def test_a_preempted_sequences_blocks_stay_and_are_attached_again():
    bench = Bench(None, num_blocks=16)
    (sequence,) = bench.add(20, max_tokens=8)
    for _ in range(4):
        bench.step()
    held = sequence.tables[0].view().block_ids
    bench.scheduler._preempt_when_idle(sequence, ask=True)
    kept = bench.pool.num_evictable_blocks
    bench.step()

    assert kept == 5
    assert sequence.tables[0].view().block_ids[:5] == held[:5]
    assert bench.scheduler.load.num_preemptions == 1


def test_why_a_prompt_missed_is_told_with_its_first_token_where_asked_for():
    bench = Bench(None, max_step_tokens=32, max_chunk_tokens=32)
    bench.add(9, max_tokens=1)
    bench.step()
    bench.add(9, max_tokens=1, wants_prefix_report=True)
    bench.add(9, max_tokens=0, prompt_logprobs=0, wants_prefix_report=True)
    reports = dict(bench.step()[1].prefix_reports)

    assert (reports[1].num_matched_tokens, reports[1].miss_reason) == (8, None)
    assert (reports[2].num_matched_tokens, reports[2].miss_reason) == (0, MissReason.SCORED)
    assert bench.scheduler.prefix_counters.num_lookups == 3


def test_clearing_the_cache_disturbs_nobody_who_runs():
    bench = Bench(None)
    (sequence,) = bench.add(9, max_tokens=6)
    bench.step()
    bench.step()

    assert bench.scheduler.clear_cache() == 2
    run_all(bench)
    assert tuple(sequence.token_ids[9:]) == _without_eos(sequence.request.prompt_ids, 0, 6)
    assert bench.pool.num_free_blocks == 64


def _without_eos(prompt, choice, max_tokens):
    tokens = list(prompt)
    for _ in range(max_tokens):
        tokens.append(next_token(tuple(tokens), choice))
    return tuple(tokens[len(prompt) :])


def test_a_constraint_that_fails_ends_its_own_sequence_alone():
    bench = Bench(None)
    (failing,), (other,) = bench.add(3, grammar="g"), bench.add(3)
    failing.constraint = FakeConstraint(failing_at=2)
    bench.step()
    _, updates = bench.step()

    assert [(sequence_id, str(error)) for sequence_id, error in updates.failures] == [(0, "too complex")]
    assert updates.sequence_ids == (1,)
    assert failing.is_finished
    assert not other.is_finished


def test_a_preemption_leaves_a_constraint_where_it_is():
    bench = Bench(None, num_blocks=4)
    (older,), (younger,) = bench.add(4, max_tokens=8), bench.add(4, max_tokens=8, grammar="g")
    younger.constraint = FakeConstraint()
    run_all(bench)

    assert bench.scheduler.load.num_preemptions > 0
    assert younger.constraint.taken == younger.token_ids[4:]
    assert older.is_finished


def test_all_that_live_are_those_that_run_and_then_those_that_wait():
    bench = Bench(6, max_running=2)
    for _ in range(4):
        bench.add(3)
    bench.step()

    assert [sequence.sequence_id for sequence in bench.scheduler.live] == sorted(
        sequence.sequence_id for sequence in bench.scheduler.live
    )
    assert [sequence.state.value for sequence in bench.scheduler.live] == [*["running"] * 2, *["waiting"] * 2]


def test_the_window_at_a_prompts_end_outlasts_what_was_generated_behind_it():
    bench = Bench(8, num_blocks=11)
    bench.add(21, max_tokens=40)
    run_all(bench)
    bench.add(21, cache_salt="other", max_tokens=1)
    run_all(bench)
    (again,) = bench.add(21)
    run_all(bench)

    assert again.num_cached == 20


def test_the_window_at_a_junction_outlasts_what_comes_behind_it():
    bench = Bench(8, num_blocks=12)
    bench.add(61, max_tokens=1)
    run_all(bench)
    bench.add(61, max_tokens=1, prompt=(*range(1, 21), *range(100, 141)))
    run_all(bench)
    (again,) = bench.add(61, max_tokens=1, prompt=(*range(1, 21), *range(150, 191)))
    run_all(bench)

    assert again.num_cached == 20
