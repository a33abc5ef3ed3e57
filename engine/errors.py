"""Every error the engine raises on purpose, as one tree.

An error crosses the process border as its class and its plain fields, and is raised again on the
other side. This module knows no status codes: `server/errors.py` alone maps errors to HTTP.

    EngineError
      ConfigError                 a setting that cannot work
        CheckpointError           weights missing, misnamed, misshapen
      RequestError                the caller can mend it
        ContextLengthError        prompt and max_tokens can never fit
        UnknownModelError         no such model or adapter
      OverloadedError             too many are waiting
      EngineUnavailableError      starting, restarting or stopping
      RateLimitedError            this caller has too many
      DeadlineError               the request's time is over
      StepError                   a step failed, its sequences ended
      EngineCrashedError          the process died under this request
"""

from typing import Self


class EngineError(Exception):
    """What went wrong, in one sentence that names the thing, its value, the limit and what to do.

    Two errors are equal when their class and fields are, so that messages which carry them can
    be compared.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), self.message))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, vars(self)))

    def fresh(self) -> Self:
        """An equal error without traceback, since one instance must not be raised in two tasks."""
        copy = type(self).__new__(type(self))
        Exception.__init__(copy, self.message)
        vars(copy).update(vars(self))
        return copy


class ConfigError(EngineError):
    """A setting cannot work; start-up ends and is not tried again."""


class CheckpointError(ConfigError):
    """A checkpoint cannot be loaded: something is missing, misnamed, misshapen or unsupported."""


class RequestError(EngineError):
    """The caller asked for something that cannot be; `param` names the field, where one is to blame."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextLengthError(RequestError):
    """Prompt and requested output can never fit into the context together."""

    @classmethod
    def of_prompt(
        cls, num_tokens: int, max_context: int, param: str | None, *, is_least: bool = False
    ) -> Self:
        """That of a prompt of `num_tokens`, or more if that `is_least`, which leaves no room for an answer."""
        source, has = ("messages", "have") if param == "messages" else ("prompt", "has")
        return cls(
            f"This model's maximum context length is {max_context} tokens, but the {source} {has} "
            f"{'at least ' if is_least else ''}{num_tokens}, which leaves none for the completion. "
            f"Shorten the {source}.",
            param,
        )


class UnknownModelError(RequestError):
    """The named model or adapter is not served here."""


class RetryableError(EngineError):
    """The same request may succeed later; `retry_after_s` says when to try."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OverloadedError(RetryableError):
    """Too many requests are waiting already."""


class EngineUnavailableError(RetryableError):
    """The engine is starting, restarting or stopping; `state` is the one word for which."""

    def __init__(self, message: str, state: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s)
        self.state = state


class RateLimitedError(RetryableError):
    """This caller has too many requests under way."""


class DeadlineError(EngineError):
    """The time that the request was given is over."""


class StepError(EngineError):
    """A step failed; the sequences it computed have ended."""


class EngineCrashedError(EngineError):
    """The engine process died while it held this request."""


def _rebuild(kind: type[EngineError], message: str, fields: dict[str, object]) -> EngineError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    vars(error).update(fields)
    return error
