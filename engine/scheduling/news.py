"""`News`: collects what a commit has to tell, and folds it into one `Updates` message of columns."""

from dataclasses import dataclass, field

from engine.errors import EngineError
from engine.messages import Load, Updates
from engine.prefix_report import PrefixReport
from engine.request import FinishReason
from engine.scheduling.sequence import Sequence
from engine.token_scores import NO_SCORES, TokenScores


@dataclass(slots=True)
class News:
    """The columns of an `Updates` message under construction."""

    _sequence_ids: list[int] = field(default_factory=list)
    _num_tokens: list[int] = field(default_factory=list)
    _token_ids: list[int] = field(default_factory=list)
    _logprobs: list[float] = field(default_factory=list)
    _ranks: list[int] = field(default_factory=list)
    _num_top: list[int] = field(default_factory=list)
    _top_ids: list[int] = field(default_factory=list)
    _top_logprobs: list[float] = field(default_factory=list)
    _prompt_scores: list[tuple[int, TokenScores]] = field(default_factory=list)
    _num_cached: list[tuple[int, int]] = field(default_factory=list)
    _prefix_reports: list[tuple[int, PrefixReport]] = field(default_factory=list)
    _finish_reasons: list[FinishReason | None] = field(default_factory=list)
    _failures: list[tuple[int, EngineError]] = field(default_factory=list)

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
        self._num_top.append(logprobs.num_top)
        if logprobs:
            self._logprobs += logprobs.logprobs
            self._ranks += logprobs.ranks
            self._top_ids += logprobs.top_ids
            self._top_logprobs += logprobs.top_logprobs
        if prompt_scores:
            self._prompt_scores.append((sequence_id, prompt_scores))

    def add_prefix(self, sequence: Sequence) -> None:
        """One sequence has its first news: tell what was cached of it, and more where asked."""
        if sequence.num_cached:
            self._num_cached.append((sequence.sequence_id, sequence.num_cached))
        if sequence.request.wants_prefix_report and sequence.prefix_report is not None:
            self._prefix_reports.append((sequence.sequence_id, sequence.prefix_report))

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
            ranks=tuple(self._ranks),
            num_top=tuple(self._num_top) if self._top_ids else (),
            top_ids=tuple(self._top_ids),
            top_logprobs=tuple(self._top_logprobs),
            prompt_scores=tuple(self._prompt_scores),
            num_cached=tuple(self._num_cached),
            prefix_reports=tuple(self._prefix_reports),
            finish_reasons=tuple(self._finish_reasons),
            failures=tuple(self._failures),
            load=load,
        )
