import queue

import pytest

from engine.errors import ContextLengthError, OverloadedError, RequestError
from engine.intake import Intake, IntakeRules, Stop
from engine.messages import Abort, Accepted, ClearCache, Drain, Finish, Refused, Submit
from engine.request import Request, SamplingParams
from engine.structured.compiler import ModelTokens
from engine.structured.mask import MaskTable
from tests.support.byte_vocabulary import TOKENS, VOCABULARY
from tests.support.specs import small_layout


def byte_rules():
    return IntakeRules(layout=small_layout(None), tokens=TOKENS)


def rules(**layout):
    tokens = ModelTokens(vocab_size=32, eos_ids=(0,))
    return IntakeRules(layout=small_layout(None, **layout), tokens=tokens)


def submit(prompt_ids=(1, 2, 3), *, max_tokens=4, n=1):
    sampling = SamplingParams(max_tokens=max_tokens, seed=0)
    request = Request(request_id="r", prompt_ids=prompt_ids, sampling=sampling, num_choices=n)
    return Submit(request=request, first_sequence_id=5)


GRAMMAR = 'start: "a"'


def constrained(grammar=GRAMMAR, *, n=1, request_id="r"):
    sampling = SamplingParams(max_tokens=4, seed=0, grammar=grammar)
    request = Request(request_id=request_id, prompt_ids=(1,), sampling=sampling, num_choices=n)
    return Submit(request=request, first_sequence_id=5)


class Waiting:
    """An intake whose channel stays open, and what it answered."""

    def __init__(self):
        self.inbox, self.answers = queue.SimpleQueue(), []
        self.intake = Intake(self.inbox.get, self.answers.append, byte_rules(), MaskTable())
        self.intake.start()

    def take(self, *messages):
        """The work that comes of `messages`, once there is some."""
        for message in messages:
            self.inbox.put(message)
        while not (work := self.intake.take(wait_s=10)):
            pass
        return work


@pytest.fixture
def waiting():
    made = Waiting()
    made.inbox.put(VOCABULARY)
    yield made
    made.inbox.put(None)


def run(*messages):
    """The work and the answers that come of `messages`."""
    inbox, answers = queue.SimpleQueue(), []
    for message in (*messages, None):
        inbox.put(message)
    intake = Intake(inbox.get, answers.append, rules(num_blocks=10), MaskTable())
    intake.start()
    work = []
    while Stop() not in work:
        work += intake.take(wait_s=10)
    return work[:-1], answers


def test_a_request_becomes_one_sequence_per_choice():
    (sequences,), answers = run(submit(n=3))

    assert [(s.sequence_id, s.choice) for s in sequences] == [(5, 0), (6, 1), (7, 2)]
    assert answers == [Accepted(request_id="r")]


def test_orders_pass_unchanged_and_in_order():
    orders = [Abort(request_id="a"), Finish(request_id="b", choice=1), ClearCache(order_id=1), Drain()]

    assert run(*orders) == (orders, [])


def test_what_can_never_fit_is_refused():
    work, (answer,) = run(submit(max_tokens=38))

    assert not work
    assert isinstance(answer, Refused)
    assert isinstance(answer.error, ContextLengthError)


def test_what_just_fits_is_accepted():
    work, _ = run(submit(max_tokens=37))

    assert len(work) == 1


def test_token_ids_outside_the_vocabulary_are_refused():
    for prompt_ids in ((1, 32), (-1, 3)):
        _, (answer,) = run(submit(prompt_ids))

        assert isinstance(answer.error, RequestError)
        assert answer.error.param == "prompt"


def test_a_broken_reader_stops_the_loop():
    def receive():
        raise OSError("broken")

    intake = Intake(receive, print, rules(), MaskTable())
    intake.start()

    assert intake.take(wait_s=10) == [Stop()]


def test_nothing_to_take_is_an_empty_list():
    intake = Intake(lambda: None, print, rules(), MaskTable())

    assert intake.take(wait_s=0) == []


def test_each_choice_of_a_constrained_request_has_a_constraint_of_its_own(waiting):
    ((first, second),) = waiting.take(constrained(n=2))
    first.constraint.advance(ord("a"))

    assert (first.constraint.is_complete, second.constraint.is_complete) == (True, False)
    assert waiting.answers == [Accepted(request_id="r")]


def test_a_free_request_does_not_wait_for_a_grammar(waiting):
    work = waiting.take(constrained(), submit())
    while len(work) < 2:
        work += waiting.take()

    assert [made[0].constraint is None for made in work] == [True, False]


def test_a_grammar_that_cannot_be_compiled_is_refused(waiting):
    work = waiting.take(constrained("start: x"), Drain())

    assert work == [Drain()]
    assert isinstance(waiting.answers[0].error, RequestError)


def test_a_request_aborted_while_its_grammar_is_compiled_never_begins(waiting):
    abort = Abort(request_id="r")
    work = waiting.take(constrained(), abort, constrained(request_id="s"))
    while work[-1] == abort:
        work += waiting.take()

    assert [work[0], work[1][0].request.request_id, len(work)] == [abort, "s", 2]
    assert waiting.answers == [Accepted(request_id="s")]


def test_a_drain_waits_for_what_was_sent_before_it(waiting):
    work = waiting.take(constrained(), Drain())

    assert [type(piece) for piece in work] == [tuple, Drain]


def test_a_grammar_that_cannot_wait_is_refused_for_now(waiting, monkeypatch):
    monkeypatch.setattr("engine.structured.compiler.MAX_WAITING", 0)
    waiting.take(constrained(), Drain())

    assert isinstance(waiting.answers[0].error, OverloadedError)
