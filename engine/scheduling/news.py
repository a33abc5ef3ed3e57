"""`News`: collects what a commit has to tell, and folds it into one `Updates` message of columns."""

from dataclasses import dataclass, field

from engine.errors import EngineError
from engine.messages import Load, Updates
from engine.request import FinishReason


@dataclass(slots=True)
class News:
    """The columns of an `Updates` message under construction."""

    _sequence_ids: list[int] = field(default_factory=list)
    _num_tokens: list[int] = field(default_factory=list)
    _token_ids: list[int] = field(default_factory=list)
    _logprobs: list[float] = field(default_factory=list)
    _finish_reasons: list[FinishReason | None] = field(default_factory=list)
    _failures: list[tuple[int, EngineError]] = field(default_factory=list)

    def add(
        self,
        sequence_id: int,
        token_ids: tuple[int, ...],
        logprobs: tuple[float, ...],
        finish_reason: FinishReason | None,
    ) -> None:
        """One sequence got tokens; `logprobs` is empty or has one entry per token."""
        self._sequence_ids.append(sequence_id)
        self._num_tokens.append(len(token_ids))
        self._token_ids += token_ids
        self._logprobs += logprobs
        self._finish_reasons.append(finish_reason)

    def add_failure(self, sequence_id: int, error: EngineError) -> None:
        """One sequence ended with an error."""
        self._failures.append((sequence_id, error))

    def to_updates(self, load: Load) -> Updates:
        """Everything so far, as the message that leaves."""
        return Updates(
            sequence_ids=tuple(self._sequence_ids),
            num_tokens=tuple(self._num_tokens),
            token_ids=tuple(self._token_ids),
            logprobs=tuple(self._logprobs),
            finish_reasons=tuple(self._finish_reasons),
            failures=tuple(self._failures),
            load=load,
        )
