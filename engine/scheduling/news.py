"""`News`: collects what a commit has to tell, and folds it into one `Updates` message of columns."""

from collections.abc import Iterable
from typing import Any

from engine.errors import EngineError
from engine.messages import Load, Updates
from engine.request import FinishReason
from engine.scheduling.sequence import Sequence
from engine.token_scores import NO_SCORES, TokenScores


class News:
    """The columns of an `Updates` message under construction.

    Only what nearly every step tells has lists from the start; the rest is gathered in `_seldom`, by the
    names of its columns, since a step of one row would take longer to make all lists than to fill them.
    """

    __slots__ = ("_finish_reasons", "_num_tokens", "_num_top", "_seldom", "_sequence_ids", "_token_ids")

    def __init__(self) -> None:
        self._sequence_ids: list[int] = []
        self._num_tokens: list[int] = []
        self._token_ids: list[int] = []
        self._finish_reasons: list[FinishReason | None] = []
        self._num_top: list[int] = []
        self._seldom: dict[str, list[Any]] = {}  # Any: each column has a type of its own

    def add(
        self,
        sequence_id: int,
        token_ids: tuple[int, ...],
        finish_reason: FinishReason | None,
        *,
        logprobs: TokenScores = NO_SCORES,
        prompt_scores: TokenScores = NO_SCORES,
    ) -> None:
        """One sequence got tokens; `logprobs` is empty or has one entry per token."""
        self._sequence_ids.append(sequence_id)
        self._num_tokens.append(len(token_ids))
        self._token_ids += token_ids
        self._finish_reasons.append(finish_reason)
        self._num_top.append(logprobs.num_top if logprobs else 0)
        if logprobs:
            self._extend("logprobs", logprobs.logprobs)
            self._extend("ranks", logprobs.ranks)
            self._extend("top_ids", logprobs.top_ids)
            self._extend("top_logprobs", logprobs.top_logprobs)
        if prompt_scores:
            self._extend("prompt_scores", ((sequence_id, prompt_scores),))

    def add_prefix(self, sequence: Sequence) -> None:
        """One sequence has its first news: tell what was cached of it, and more where asked."""
        if sequence.num_cached:
            self._extend("num_cached", ((sequence.sequence_id, sequence.num_cached),))
        if sequence.request.wants_prefix_report and sequence.prefix_report is not None:
            self._extend("prefix_reports", ((sequence.sequence_id, sequence.prefix_report),))

    def add_failure(self, sequence_id: int, error: EngineError) -> None:
        """One sequence ended with an error."""
        self._extend("failures", ((sequence_id, error),))

    def to_updates(self, load: Load) -> Updates:
        """All of it as the message that leaves."""
        updates = Updates(
            sequence_ids=tuple(self._sequence_ids),
            num_tokens=tuple(self._num_tokens),
            token_ids=tuple(self._token_ids),
            finish_reasons=tuple(self._finish_reasons),
            load=load,
        )
        seldom = self._seldom
        if not seldom:
            return updates
        if seldom.get("top_ids"):
            seldom["num_top"] = self._num_top
        return updates._replace(**{name: tuple(column) for name, column in seldom.items()})  # type: ignore[arg-type] # see `_seldom`

    def _extend(self, column: str, values: Iterable[object]) -> None:
        self._seldom.setdefault(column, []).extend(values)
