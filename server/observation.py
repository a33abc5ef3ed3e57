"""`Answered`: all that is known of one HTTP request at its end; and the one line it leaves in the log.

Logs, metrics and traces are observers of it. Nothing here holds a prompt or an output.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPMethod

from engine import RequestRecord, shown_ms

OTHER = "other"
"""Stands for every path that is no route, and every method that is none, so that labels stay few."""
FINISHED = (
    "request finished id=%s number=%s method=%s route=%s status=%d reason=%s prompt_tokens=%d "
    "cached_tokens=%d output_tokens=%d queue_ms=%s first_token_ms=%s duration_ms=%.1f"
)
ANSWERED = "request answered id=%s number=%s method=%s path=%r status=%d duration_ms=%.1f"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One request, whatever its end.

    `route` is the template of the path (`/v1/models/{model_id}`), None where there is no such route.
    `number` is the request's own, `request_id` may be the client's choice. `status` is 0 where no answer
    was begun. `records` has one entry for each prompt that the engine took, when all have ended.
    `started_s` and `ended_s` are of the clock that the records use, `trace_headers` are those of W3C's trace context,
    as sent.
    """

    request_id: str
    number: str
    method: str
    path: str
    route: str | None
    status: int
    started_s: float
    ended_s: float
    records: Sequence[RequestRecord] = ()
    trace_headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        """From its first byte to its last."""
        return self.ended_s - self.started_s

    @property
    def method_label(self) -> str:
        """The method, if it is one."""
        return self.method if self.method in HTTPMethod.__members__ else OTHER

    @property
    def route_label(self) -> str:
        """The route, if there is one."""
        return self.route or OTHER


Observer = Callable[[Answered], None]


def log_line(answered: Answered, *, is_quiet: bool) -> None:
    """Leave the request's line in the log, at DEBUG if it `is_quiet`: a probe's."""
    level = logging.DEBUG if is_quiet else logging.INFO
    if not answered.records:
        logger.log(
            level, ANSWERED, answered.request_id, answered.number, answered.method, answered.path,
            answered.status, 1000 * answered.duration_s,
        )  # fmt: skip
        return
    records = answered.records
    logger.log(
        level, FINISHED, answered.request_id, answered.number, answered.method, answered.route_label,
        answered.status, "+".join(dict.fromkeys(record.reason for record in records)),
        sum(len(record.request.prompt_ids) for record in records),
        sum(record.num_cached_tokens for record in records),
        sum(record.num_output_tokens for record in records),
        _chosen_ms(max, [record.waited_s for record in records]),
        _chosen_ms(min, [record.to_first_token_s for record in records]),
        1000 * answered.duration_s,
    )  # fmt: skip


def _chosen_ms(choose: Callable[[Sequence[float]], float], seconds: Sequence[float | None]) -> float | str:
    """The chosen one of those that are known."""
    known = [value for value in seconds if value is not None]
    return shown_ms(choose(known) if known else None)
