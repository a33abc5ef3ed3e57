import gc
import os
import select
import signal
import subprocess
import sys

import pytest

from engine.errors import EngineError, OverloadedError, RequestError
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
    assert "longer than 3 s" in refusal.message
    assert trial.refusal('start: "a"') is None


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (-signal.SIGALRM, RequestError, "takes longer than 3 s"),
        (-signal.SIGSEGV, RequestError, "too deep or too large"),
        (-signal.SIGABRT, RequestError, "too deep or too large"),
        (-signal.SIGKILL, OverloadedError, "ended by signal 9"),
        (-signal.SIGTERM, OverloadedError, "ended by signal 15"),
        (module.FAILED_STATUS, EngineError, "failed with status 70"),
        (1, EngineError, "failed with status 1"),
    ],
)
def test_a_death_is_told_by_its_cause(status, kind, told):
    error = module._cause_of_death(status)

    assert type(error) is kind
    assert told in error.message


@pytest.mark.parametrize(
    ("script", "limit_s", "kind", "told"),
    [
        ("import signal; signal.pause()", 0.2, OverloadedError, "could not start within 0.2 s"),
        ("raise SystemExit(3)", 20.0, EngineError, "could not start: status 3"),
    ],
    ids=["hangs", "fails"],
)
def test_a_process_that_does_not_start_is_no_fault_of_the_grammar(monkeypatch, script, limit_s, kind, told):
    monkeypatch.setattr(module, "COMMAND", (sys.executable, "-S", "-c", script))
    monkeypatch.setattr(module, "MAX_START_S", limit_s)
    owner = Trial(VOCABULARY, TOKENS.vocab_size, TOKENS.eos_ids)

    with pytest.raises(EngineError) as caught:
        owner.refusal('start: "a"')
    assert type(caught.value) is kind
    assert told in caught.value.message


def test_an_error_of_the_process_itself_has_a_status_of_its_own():
    ended = subprocess.run(module.COMMAND, input=b"[]\n", capture_output=True, check=False, timeout=60)

    assert ended.returncode == module.FAILED_STATUS


@pytest.fixture
def soon_idle(monkeypatch):
    script = "import engine.structured.trial as trial; trial.MAX_IDLE_S = 0.05; trial.main()"
    monkeypatch.setattr(module, "COMMAND", (sys.executable, "-P", "-c", script))
    return Trial(VOCABULARY, TOKENS.vocab_size, TOKENS.eos_ids)


def test_the_process_ends_when_it_is_idle_and_the_next_grammar_has_another(soon_idle):
    first = soon_idle.start()
    assert soon_idle.refusal('start: "a"') is None

    assert first.wait(20) == module.IDLE_STATUS
    assert soon_idle.refusal('start: "a"') is None
    assert soon_idle.start() is not first


def test_a_grammar_that_meets_the_end_of_an_idle_process_is_tried_in_the_next(soon_idle, monkeypatch):
    ready = soon_idle._ready_process
    met = []

    def just_ended():
        process = ready()
        if not met:
            process.wait(20)
            met.append(process)
        return process

    monkeypatch.setattr(soon_idle, "_ready_process", just_ended)

    assert soon_idle.refusal("start: x").param == "grammar"
    assert met[0].returncode == module.IDLE_STATUS


def test_the_process_ends_when_its_owners_is_killed():
    script = (
        "import signal\nfrom engine.structured.trial import Trial\n"
        "from tests.support.byte_vocabulary import TOKENS, VOCABULARY\n"
        "trial = Trial(VOCABULARY, TOKENS.vocab_size, TOKENS.eos_ids)\n"
        "assert trial.refusal('start: \"a\"') is None\nprint(trial.start().pid, flush=True)\nsignal.pause()\n"
    )
    with subprocess.Popen((sys.executable, "-c", script), stdout=subprocess.PIPE, text=True) as owner:
        handle = os.pidfd_open(int(owner.stdout.readline()))
        is_running = not select.select([handle], [], [], 0)[0]
        owner.kill()
        has_ended = bool(select.select([handle], [], [], 20)[0])
        os.close(handle)

    assert is_running
    assert has_ended


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
    process.wait(20)

    assert trial.refusal('start: "a"') is None
    assert process.stdin.closed
    assert process.stdout.closed
