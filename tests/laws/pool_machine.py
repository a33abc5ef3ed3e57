"""The state machine over pool and scheduler: random work, random order, every law after every step."""

import pickle

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.cache.pool import CachePool
from engine.config import ADMISSIONS, SchedulingConfig
from engine.errors import StepError
from engine.messages import Updates
from engine.plan import StepPlan
from engine.request import FinishReason, Request, SamplingParams
from engine.scheduling.scheduler import Scheduler
from engine.scheduling.sequence import Sequence, SequenceState, make_sequences
from tests.support.fake_runner import FakeRunner, expected_tokens
from tests.support.manual_clock import ManualClock
from tests.support.specs import small_layout

MAX_CONTEXT = 48
HABITS = ({}, {"presence_penalty": 0.5}, {"dry_multiplier": 1.0, "dry_range": 4}, {"prompt_logprobs": 1})
WINDOWS = st.sampled_from([(None,), (1,), (3,), (5,), (8,), (None, 6), (7, 2, 2, 7)])


class PoolMachine(RuleBasedStateMachine):
    """Adds, plans, commits, aborts, finishes and fails; the FakeRunner checks what is read and written."""

    @initialize(
        windows=WINDOWS,
        block_size=st.integers(1, 6),
        max_chunk_tokens=st.integers(1, 12),
        max_running=st.integers(1, 4),
        spare_budget=st.integers(0, 8),
        spare_blocks=st.sampled_from([0, 0, 0, 1, 3, 12]),
        steps_in_flight=st.integers(1, 2),
        has_prefix_cache=st.booleans(),
        admission=st.sampled_from(ADMISSIONS),
    )
    def start(
        self,
        windows,
        block_size,
        max_chunk_tokens,
        max_running,
        spare_budget,
        spare_blocks,
        steps_in_flight,
        has_prefix_cache,
        admission,
    ):
        dials = {"block_size": block_size, "max_chunk_tokens": max_chunk_tokens, "max_context": MAX_CONTEXT}
        roomy = small_layout(*windows, num_blocks=1000, **dials)
        num_blocks = roomy.num_blocks_for(MAX_CONTEXT) + spare_blocks
        self.layout = small_layout(*windows, num_blocks=num_blocks, **dials)
        assert self.layout.max_context == MAX_CONTEXT
        self.pool = CachePool(self.layout)
        config = SchedulingConfig(
            max_step_tokens=max_running + spare_budget,
            max_chunk_tokens=max_chunk_tokens,
            max_running=max_running,
            steps_in_flight=steps_in_flight,
            admission=admission,
            priority_ageing_s=10.0,
        )
        self.clock = ManualClock()
        self.has_prefix_cache = has_prefix_cache
        self.max_chunk_tokens = max_chunk_tokens
        self.steps_in_flight = steps_in_flight
        self.scheduler = Scheduler(config, self.pool, frozenset({0}), self.clock.now)
        self.runner = FakeRunner(self.layout)
        self.sequences: dict[int, Sequence] = {}
        self.outputs: dict[int, list[int]] = {}
        self.scores: dict[int, list[float]] = {}
        self.ended: dict[int, FinishReason | str] = {}
        self.handles = []
        self.next_id = 0

    @rule(
        prompt_length=st.integers(1, 40),
        max_tokens=st.integers(1, 12),
        n=st.integers(1, 3),
        salt=st.integers(1, 3),
        priority=st.integers(-1, 1),
        caller=st.sampled_from(["a", "a", "b", "c"]),
        habits=st.sampled_from(HABITS),
    )
    def add(self, prompt_length, max_tokens, n, salt, priority, caller, habits):
        max_tokens = min(max_tokens, MAX_CONTEXT - prompt_length)
        if "prompt_logprobs" in habits and max_tokens % 2:
            max_tokens = 0
        request = Request(
            request_id=f"r{self.next_id}",
            prompt_ids=tuple((salt * i) % 31 + 1 for i in range(prompt_length)),
            sampling=SamplingParams(max_tokens=max_tokens, seed=0, **habits),
            num_choices=n,
            caller=caller,
            priority=priority,
        )
        tables = [self.layout.new_tables() for _ in range(n)]
        made = make_sequences(request, self.next_id, tables, has_prefix_cache=self.has_prefix_cache)
        for sequence in made:
            self.sequences[sequence.sequence_id] = sequence
            self.outputs[sequence.sequence_id] = []
            self.scores[sequence.sequence_id] = []
            self.runner.expect(sequence.sequence_id, request.prompt_ids)
        self.next_id += n
        self.scheduler.add(made)

    @precondition(lambda self: len(self.handles) < self.steps_in_flight)
    @rule()
    def begin(self):
        plan = self.scheduler.plan()
        assert pickle.loads(pickle.dumps(plan)) == plan
        assert plan.num_tokens <= self.scheduler._config.max_step_tokens
        assert len({chunk.sequence_id for chunk in plan.chunks}) == len(plan.chunks)
        if plan.chunks:
            self.handles.append(self.runner.begin(plan))
        else:
            assert self.handles or not self.scheduler.has_work, "nothing planned though there is work"

    @precondition(lambda self: self.handles)
    @rule()
    def commit(self):
        handle = self.handles.pop(0)
        result = self.runner.finish(handle)
        assert pickle.loads(pickle.dumps(result)) == result
        self.note(self.scheduler.commit(handle.plan, result))

    @precondition(lambda self: self.handles)
    @rule()
    def fail(self):
        handle = self.handles.pop(0)
        self.runner.finish(handle)
        self.note(self.scheduler.fail(handle.plan, StepError("planted")))

    @precondition(lambda self: self.next_id)
    @rule(pick=st.integers(0, 1000))
    def abort(self, pick):
        sequence = self.sequences[pick % self.next_id]
        for _ in range(2):
            self.scheduler.abort(sequence.request.request_id)
        for own in self.sequences.values():
            if own.request is sequence.request:
                self.ended.setdefault(own.sequence_id, "aborted")

    @precondition(lambda self: self.next_id)
    @rule(pick=st.integers(0, 1000))
    def finish(self, pick):
        sequence = self.sequences[pick % self.next_id]
        for _ in range(2):
            self.scheduler.finish(sequence.request.request_id, sequence.choice)
        self.ended.setdefault(sequence.sequence_id, "finished")

    @rule()
    def clear_cache(self):
        self.scheduler.clear_cache()
        assert self.pool.num_evictable_blocks == 0
        assert self.scheduler.clear_cache() == 0

    @rule(duration_s=st.sampled_from([0.5, 10.0, 25.0]))
    def wait(self, duration_s):
        self.clock.jump(duration_s)

    def note(self, updates: Updates) -> None:
        for sequence_id, scores in updates.prompt_scores:
            self.scores[sequence_id] += scores.logprobs
        tokens = iter(updates.token_ids)
        for sequence_id, count, reason in zip(
            updates.sequence_ids, updates.num_tokens, updates.finish_reasons, strict=True
        ):
            assert sequence_id not in self.ended, "news of an ended sequence"
            self.outputs[sequence_id] += [next(tokens) for _ in range(count)]
            if reason is not None:
                self.ended[sequence_id] = reason
        for sequence_id, _ in updates.failures:
            assert sequence_id not in self.ended
            self.ended[sequence_id] = "failed"
        assert next(tokens, None) is None

    @invariant()
    def counts_stay_in_order(self):
        for sequence in self.sequences.values() if hasattr(self, "sequences") else ():
            if sequence.is_finished:
                continue  # a failed step leaves counts behind that nobody reads again
            newest = len(sequence.token_ids) + sequence.num_draws_in_flight
            assert 0 <= sequence.num_computed <= sequence.num_planned <= newest
            assert sequence.num_uncommitted <= self.max_chunk_tokens

    @invariant()
    def every_block_has_as_many_owners_as_tables_name_it(self):
        if not hasattr(self, "pool"):
            return
        owners = [0] * self.layout.num_blocks
        for sequence in self.sequences.values():
            for table in sequence.tables:
                for block_id in table.view().block_ids:
                    owners[block_id] += 1
        assert owners == [self.pool.num_owners(block_id) for block_id in range(self.layout.num_blocks)]
        assert owners.count(0) == self.pool.num_free_blocks

    @invariant()
    def a_sequence_holds_only_live_blocks_within_its_bound(self):
        for sequence in self.sequences.values() if hasattr(self, "sequences") else ():
            if sequence.state is SequenceState.FINISHED and not sequence.num_steps_in_flight:
                assert not sequence.holds_blocks
            bounds = zip(self.layout.groups, sequence.tables, sequence.worst_blocks, strict=True)
            for group, table, most in bounds:
                assert table.num_held <= most <= group.ring_blocks
                assert table.num_held <= -(-sequence.num_planned // self.layout.block_size)
                if table.num_held and group.window is not None:
                    oldest_visible = sequence.num_computed - group.window + 1
                    assert (table.first_block + 1) * self.layout.block_size > oldest_visible

    @invariant()
    def outputs_do_not_depend_on_company(self):
        for sequence_id, output in self.outputs.items() if hasattr(self, "outputs") else ():
            sequence = self.sequences[sequence_id]
            request = sequence.request
            expected = expected_tokens(request.prompt_ids, sequence.choice, request.sampling.max_tokens)
            assert tuple(output) == expected[: len(output)]
            reason = self.ended.get(sequence_id)
            if isinstance(reason, FinishReason):
                assert tuple(output) == expected
                assert reason == (FinishReason.STOP if expected[-1:] == (0,) else FinishReason.LENGTH)

    @invariant()
    def a_scored_prompt_is_told_once_in_order(self):
        for sequence_id, scores in self.scores.items() if hasattr(self, "scores") else ():
            sequence = self.sequences[sequence_id]
            told = [-score for score in scores]
            asks = sequence.request.sampling.prompt_logprobs is not None and sequence.choice == 0
            expected = sequence.request.prompt_ids[1:] if asks else ()
            assert told == list(expected[: len(told)])
            if isinstance(self.ended.get(sequence_id), FinishReason) or self.outputs[sequence_id]:
                assert told == list(expected)

    @invariant()
    def each_sequence_is_in_its_queue_and_each_queue_in_order(self):
        if not hasattr(self, "scheduler"):
            return
        waiting = self.scheduler._waiting
        queues = [account.queue for account in waiting._accounts.values()]
        for queue in (self.scheduler._running, waiting._begun, *queues):
            places = [sequence.place for sequence in queue]
            assert places == sorted(places)
        queued = [sequence.sequence_id for sequence in waiting.in_turn()]
        for state, ids in (
            (SequenceState.WAITING, queued),
            (SequenceState.RUNNING, [sequence.sequence_id for sequence in self.scheduler._running]),
        ):
            assert sorted(ids) == [s.sequence_id for s in self.sequences.values() if s.state is state]
        assert len(waiting) == len(queued)

    @invariant()
    def only_who_has_begun_holds_blocks(self):
        for sequence in self.sequences.values() if hasattr(self, "sequences") else ():
            assert sequence.has_begun or not sequence.holds_blocks

    @invariant()
    def under_guaranteed_admission_nobody_is_preempted(self):
        if not hasattr(self, "scheduler") or self.scheduler._config.admission != "guaranteed":
            return
        assert self.scheduler.load.num_preemptions == 0
        assert not any(sequence.must_preempt for sequence in self.sequences.values())
        begun = [s for s in self.sequences.values() if s.has_begun and not s.is_finished]
        assert sum(sum(sequence.worst_blocks) for sequence in begun) <= self.layout.num_blocks

    def teardown(self):
        """Whatever is left can run to its end, and then all blocks are free."""
        if not hasattr(self, "scheduler"):
            return
        num_steps = 0
        while self.handles or self.scheduler.has_work:
            plan = StepPlan()
            if len(self.handles) < self.steps_in_flight:
                plan = self.scheduler.plan()
            if plan.chunks:
                self.handles.append(self.runner.begin(plan))
            if len(self.handles) == self.steps_in_flight or not plan.chunks:
                assert self.handles, "deadlock: work, but nothing planned and nothing in flight"
                handle = self.handles.pop(0)
                self.note(self.scheduler.commit(handle.plan, self.runner.finish(handle)))
            self.a_sequence_holds_only_live_blocks_within_its_bound()
            num_steps += 1
            assert num_steps < 10_000, "no progress"
        self.outputs_do_not_depend_on_company()
        assert set(self.ended) == set(self.sequences)
        assert self.pool.num_free_blocks == self.layout.num_blocks
        self.under_guaranteed_admission_nobody_is_preempted()
