import queue
import threading
from concurrent.futures import Future

import pytest

from engine.errors import OverloadedError, RequestError
from engine.structured import compiler as module
from engine.structured.compiler import Grammar, GrammarCompiler
from engine.structured.mask import MaskTable
from tests.support.byte_vocabulary import TOKENS, VOCABULARY


class World:
    """A compiler, and what it told."""

    def __init__(self):
        self.now_s = 0.0
        self.woken = queue.SimpleQueue()
        self.masks = MaskTable()
        self.compiler = GrammarCompiler(
            TOKENS, self.masks, lambda: self.woken.put(True), now=lambda: self.now_s
        )

    def take(self):
        """What is ready after the next call of `wake`."""
        self.woken.get(timeout=20)
        return self.compiler.take_ready()


@pytest.fixture
def world():
    made = World()
    made.compiler.supply(VOCABULARY)
    return made


def blocked(world):
    """Occupy all threads until the answer is set."""
    release = threading.Event()
    for _ in range(module.MAX_THREADS):
        world.compiler._threads().submit(release.wait, 30)
    return release


def test_a_grammar_becomes_an_automaton_whose_masks_are_known_by_its_sequence(world):
    world.compiler.begin("r", 'start: "a"')
    ((request_id, grammar),) = world.take()
    automaton = world.compiler.constrain(grammar, 7)

    assert request_id == "r"
    assert isinstance(grammar, Grammar)
    assert not automaton.is_complete
    assert world.masks.fill([7]).result().any()


def test_a_trial_serves_the_next_grammar_whatever_became_of_the_last():
    class Failing:
        def refusal(self, _):
            raise OverloadedError("not now")

    opened, trials, trial = Future(), queue.LifoQueue(), Failing()
    opened.set_result(None)
    trials.put(trial)

    with pytest.raises(OverloadedError):
        module._compile(opened, trials, 'start: "a"')
    assert trials.get_nowait() is trial


def test_a_failure_that_is_no_fault_of_the_grammar_is_not_remembered(world, monkeypatch):
    def fail(*_):
        raise OverloadedError("not now")

    with monkeypatch.context() as patched:
        patched.setattr(module, "_compile", fail)
        world.compiler.begin("a", 'start: "a"')
        ((_, error),) = world.take()
    world.compiler.begin("b", 'start: "a"')
    ((_, grammar),) = world.take()

    assert isinstance(error, OverloadedError)
    assert isinstance(grammar, Grammar)


def test_a_wrong_grammar_is_remembered_as_such(world):
    world.compiler.begin("a", "start: x")
    world.take()
    world.compiler.begin("b", "start: x")

    ((_, error),) = world.compiler.take_ready()
    assert isinstance(error, RequestError)


def test_a_wrong_grammar_is_told_to_its_own_request(world):
    world.compiler.begin("r", "start: x")
    ((request_id, error),) = world.take()

    assert request_id == "r"
    assert isinstance(error, RequestError)
    assert not world.compiler.has_wishes


def test_a_grammar_is_compiled_once_and_is_ready_at_once_afterwards(world):
    world.compiler.begin("a", 'start: "a"')
    ((_, first),) = world.take()
    world.compiler.begin("b", 'start: "a"')
    world.compiler.begin("c", 'start: "a"')

    assert world.compiler.take_ready() == [("b", first), ("c", first)]
    assert world.woken.empty()


def test_two_that_want_the_same_at_once_share_the_work(world):
    release = blocked(world)
    world.compiler.begin("a", 'start: "a"')
    world.compiler.begin("b", 'start: "a"')
    release.set()

    (_, first), (_, second) = world.take()
    assert first is second


def test_a_request_that_nobody_wants_any_more_is_not_told(world):
    world.compiler.begin("a", 'start: "a"')
    world.compiler.drop("a")

    assert world.take() == []


def test_too_many_at_once_are_refused_for_now(world, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    release = blocked(world)
    for name in "ab":
        world.compiler.begin(name, f'start: "{name}"')

    with pytest.raises(OverloadedError):
        world.compiler.begin("c", 'start: "c"')
    release.set()


def test_one_that_waits_too_long_is_given_up_and_compiled_anew_when_it_is_wanted_again(world, monkeypatch):
    release, begun = threading.Event(), threading.Event()

    def compile_slowly(*_):
        begun.set()
        release.wait(30)

    with monkeypatch.context() as patched:
        patched.setattr(module, "_compile", compile_slowly)
        world.compiler.begin("slow", 'start: "a"')
        assert begun.wait(20)
    before = world.compiler.take_ready()
    world.now_s = module.MAX_WAIT_S
    ((request_id, error),) = world.compiler.take_ready()
    release.set()
    world.compiler.begin("again", 'start: "a"')

    assert (before, request_id) == ([], "slow")
    assert isinstance(error, OverloadedError)
    assert isinstance(dict(world.take() or world.take())["again"], Grammar)


def test_one_that_no_thread_had_time_for_may_be_tried_again(world):
    release = blocked(world)
    for name in "ab":
        world.compiler.begin(name, 'start: "a"')
    world.now_s = module.MAX_WAIT_S
    given_up = world.compiler.take_ready()
    release.set()

    assert [name for name, _ in given_up] == ["a", "b"]
    assert all(isinstance(error, OverloadedError) for _, error in given_up)


def test_one_that_would_overflow_the_stack_is_refused_and_the_next_compiled(world):
    rules = "".join(f'\na{i}: a{i + 1} "x"' for i in range(5000))
    world.compiler.begin("deep", f'start: a0{rules}\na5000: "x"\n')
    ((_, error),) = world.take()
    world.compiler.begin("plain", 'start: "a"')
    ((_, grammar),) = world.take()

    assert isinstance(error, RequestError)
    assert "too deep" in error.message
    assert isinstance(grammar, Grammar)


def test_what_was_used_longest_ago_is_forgotten_first(world, monkeypatch):
    monkeypatch.setattr(module, "MAX_CACHED", 2)
    for name in "abac":
        world.compiler.begin(name, f'start: "{name}"')

    assert list(world.compiler._cache) == ['start: "a"', 'start: "c"']


def test_the_cache_is_bounded_in_size_too(world, monkeypatch):
    monkeypatch.setattr(module, "MAX_CACHED_CHARS", 25)
    for name in "abc":
        world.compiler.begin(name, f'start: "{name}"')

    assert list(world.compiler._cache) == ['start: "b"', 'start: "c"']


def test_the_library_is_not_loaded_before_it_is_needed():
    import subprocess
    import sys

    script = "import engine.build, sys; print('llguidance' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
