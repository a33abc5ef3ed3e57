import pickle

import pytest

from engine import errors
from engine.errors import (
    CheckpointError,
    ConfigError,
    ContextLengthError,
    EngineError,
    EngineUnavailableError,
    OverloadedError,
    RequestError,
    RetryableError,
)

EVERY_ERROR = [
    errors.EngineError("a"),
    errors.ConfigError("a"),
    errors.CheckpointError("a"),
    errors.RequestError("a", "n"),
    errors.RequestError("a"),
    errors.ContextLengthError("a", "messages"),
    errors.UnknownModelError("a", "model"),
    errors.RetryableError("a", 3.0),
    errors.OverloadedError("a", 2.5),
    errors.EngineUnavailableError("a", "starting", 2.0),
    errors.RateLimitedError("a", 4.0),
    errors.DeadlineError("a"),
    errors.StepError("a"),
    errors.EngineCrashedError("a"),
]
IDS = [type(error).__name__ for error in EVERY_ERROR]


def all_classes(root: type[EngineError]) -> set[type[EngineError]]:
    return {root}.union(*(all_classes(kind) for kind in root.__subclasses__()))


def test_every_class_of_the_tree_is_tried_here():
    assert {type(error) for error in EVERY_ERROR} == all_classes(EngineError)


@pytest.mark.parametrize("error", EVERY_ERROR, ids=IDS)
def test_an_error_crosses_the_border_with_its_class_and_fields(error: EngineError):
    arrived = pickle.loads(pickle.dumps(error))

    assert type(arrived) is type(error)
    assert vars(arrived) == vars(error)
    assert str(arrived) == "a"
    assert arrived == error


@pytest.mark.parametrize("error", EVERY_ERROR, ids=IDS)
def test_a_fresh_copy_is_equal_and_has_no_traceback(error: EngineError):
    with pytest.raises(EngineError) as caught:
        raise error.fresh()
    copy = caught.value.fresh()

    assert copy == error
    assert copy is not caught.value
    assert copy.__traceback__ is None
    assert str(copy) == "a"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ConfigError("a"), ConfigError("b")),
        (ConfigError("a"), CheckpointError("a")),
        (RequestError("a", "n"), RequestError("a", "stop")),
        (OverloadedError("a", 1.0), OverloadedError("a", 2.0)),
        (EngineUnavailableError("a", "starting"), EngineUnavailableError("a", "failed")),
        (EngineError("a"), ValueError("a")),
    ],
    ids=["message", "class", "param", "time", "state", "foreign"],
)
def test_errors_that_differ_are_not_equal(one: Exception, other: Exception):
    assert one != other


def test_equal_errors_hash_alike():
    assert len({RequestError("a", "n"), RequestError("a", "n"), ContextLengthError("a", "n")}) == 2


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (CheckpointError, ConfigError),
        (ContextLengthError, RequestError),
        (errors.UnknownModelError, RequestError),
        (OverloadedError, RetryableError),
        (EngineUnavailableError, RetryableError),
        (errors.RateLimitedError, RetryableError),
    ],
)
def test_the_tree_is_as_drawn(kind: type[EngineError], base: type[EngineError]):
    assert kind.__bases__ == (base,)


@pytest.mark.parametrize(
    ("param", "words"), [("messages", "the messages have at least 9"), (None, "the prompt has 9")]
)
def test_a_long_prompt_is_named_as_its_field(param, words):
    error = ContextLengthError.of_prompt(9, 8, param, is_least=param is not None)

    assert words in error.message
    assert "maximum context length is 8 tokens" in error.message
    assert error.param == param
