import queue

from engine.errors import ContextLengthError, RequestError
from engine.intake import Intake, IntakeRules, Stop
from engine.messages import Abort, Accepted, Drain, Finish, Refused, Submit
from engine.request import Request, SamplingParams
from engine.structured.compiler import ModelTokens
from engine.structured.mask import MaskTable
from tests.support.specs import small_layout


def rules(**layout):
    tokens = ModelTokens(vocab_size=32, eos_ids=(0,))
    return IntakeRules(layout=small_layout(None, **layout), tokens=tokens)


def submit(prompt_ids=(1, 2, 3), *, max_tokens=4, n=1):
    sampling = SamplingParams(max_tokens=max_tokens, seed=0)
    request = Request(request_id="r", prompt_ids=prompt_ids, sampling=sampling, num_choices=n)
    return Submit(request=request, first_sequence_id=5)


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
    orders = [Abort(request_id="a"), Finish(request_id="b", choice=1), Drain()]

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
