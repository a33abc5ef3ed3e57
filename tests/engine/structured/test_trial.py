import gc
import subprocess

import pytest

from engine.structured import trial as module
from engine.structured.trial import Trial
from tests.support.byte_vocabulary import TOKENS, VOCABULARY

DEEP = "start: a0" + "".join(f'\na{i}: a{i + 1} "x"' for i in range(5000)) + '\na5000: "x"\n'
SLOW = 'start: %json {"type": "integer", "multipleOf": 999983}'


@pytest.fixture(scope="module")
def trial():
    return Trial(VOCABULARY, TOKENS.vocab_size, TOKENS.eos_ids)


def test_a_grammar_that_can_be_compiled_passes(trial):
    assert trial.refusal('start: "a"') is None


def test_one_that_cannot_is_refused_for_the_librarys_reason(trial):
    refusal = trial.refusal('start: %json {"properties": {"a": {"not": {}}}}')

    assert refusal is not None
    assert refusal.param == "grammar"
    assert refusal.message.endswith('Unimplemented keys: ["not"] (in the schema at #/properties/a)')


def test_one_that_overflows_the_stack_ends_the_process_of_the_trial_alone(trial):
    refusal = trial.refusal(DEEP)

    assert refusal is not None
    assert (
        refusal.message
        == "the constraint on the output is too deep or too large to be compiled; make it smaller"
    )
    assert trial.refusal('start: "a"') is None


@pytest.mark.slow
def test_one_that_takes_too_long_is_given_up(trial):
    refusal = trial.refusal(SLOW)

    assert refusal is not None
    assert "longer than 5 s" in refusal.message
    assert trial.refusal('start: "a"') is None


@pytest.mark.parametrize(
    ("status", "told"), [(-14, "takes longer than 5 s"), (-11, "too deep or too large"), (1, "too deep")]
)
def test_a_death_is_told_by_its_cause(status, told):
    assert told in module._cause_of_death(status).message


def test_the_process_ends_with_its_owner():
    owner = Trial(VOCABULARY, TOKENS.vocab_size, TOKENS.eos_ids)
    process = owner.start()
    del owner
    gc.collect()

    assert process.returncode is not None


def test_the_process_ends_with_its_standard_input():
    ended = subprocess.run(module.COMMAND, input=b"", capture_output=True, check=False, timeout=60)

    assert ended.stdout == b""


def test_a_death_leaves_no_pipe_open(trial):
    process = trial.start()
    process.kill()

    assert trial.refusal('start: "a"') is not None
    assert process.stdin.closed
    assert process.stdout.closed
