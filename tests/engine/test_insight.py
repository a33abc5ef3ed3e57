from engine.stats import EngineView
from tests.support.new_request import new_request
from tests.support.played_engine import new_engine, play, text_of
from tests.support.scripted_engine import HOLD, KILL
from tests.support.until import until


def test_before_the_first_process_nothing_is_known():
    stats = new_engine().insight.stats()

    assert (stats.pid, stats.silent_s, stats.ages_s) == (None, None, {})


def test_what_the_engine_counts_is_told():
    async def act(engine) -> object:
        await until(lambda: engine.insight.stats().counters.num_preempted)
        return engine.insight.stats()

    stats = play(new_engine("--counts"), act)

    assert stats.counters.num_preempted >= 1
    assert stats.pool.num_blocks == 1
    assert stats.pid is not None
    assert stats.silent_s < 10


def test_counters_do_not_go_back_when_the_engine_is_started_again():
    async def act(engine) -> object:
        await until(lambda: engine.insight.stats().counters.num_preempted >= 5)
        before = engine.insight.stats().counters.num_preempted
        await engine.submit(new_request((KILL,)))
        await until(lambda: engine.insight.stats().pid is None)
        between = engine.insight.stats()
        await until(lambda: engine.health().generation == 2)
        await engine.wait_ready()
        await until(lambda: engine.insight.stats().counters.num_preempted > between.counters.num_preempted)
        return before, between, engine.health()

    before, between, health = play(new_engine("--counts"), act)

    assert before <= between.counters.num_preempted
    assert between.pool.num_blocks == 0
    assert health.num_restarts == 1


def test_requests_under_way_have_an_age():
    async def act(engine) -> object:
        stream = await engine.submit(new_request((HOLD,), request_id="held"))
        ages_s = engine.insight.stats().ages_s
        await stream.aclose()
        return ages_s

    ages_s = play(new_engine(), act)

    assert set(ages_s) == {"held"}
    assert ages_s["held"] >= 0


def test_requests_are_counted_and_timed():
    async def act(engine) -> object:
        await text_of(await engine.submit(new_request("hello", max_tokens=5)))
        return engine.insight.stats().requests

    requests = play(new_engine(), act)

    assert requests.num_by_outcome == {"length": 1}
    assert (requests.num_prompt_tokens, requests.num_generated_tokens) == (5, 5)
    assert requests.inter_token_s.num_values == 4
    assert requests.first_token_s.num_values == 1


def test_the_engine_answers_what_is_live():
    view = play(new_engine(), lambda engine: engine.insight.inspect(10.0))

    assert isinstance(view, EngineView)


def test_figures_are_as_new_as_the_last_look():
    async def act(engine) -> object:
        view = await engine.insight.inspect(10.0)
        return view.stats, engine.insight.stats()

    seen, told = play(new_engine(), act)

    assert told.counters == seen.counters
    assert told.counters.num_preempted


def test_a_stuck_engine_has_no_answer():
    view = play(new_engine("--ignore-inspect"), lambda engine: engine.insight.inspect(0.05))

    assert view is None


def test_an_engine_that_dies_meanwhile_has_no_answer():
    async def act(engine) -> object:
        await engine.submit(new_request((KILL,)))
        return await engine.insight.inspect(60.0)

    assert play(new_engine(), act) is None


def test_before_it_is_ready_there_is_no_answer():
    view = play(new_engine("--never-ready"), lambda engine: engine.insight.inspect(60.0), until_ready=False)

    assert view is None
