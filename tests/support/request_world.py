"""OpenRequests fed by hand, with a record of what it sent."""

from engine.errors import EngineError
from engine.messages import ToEngine, Updates
from engine.open_request import OpenRequest
from engine.open_requests import OpenRequests
from engine.request import FinishReason, Request
from engine.text.detokenizer import ChoiceText, TextRules
from tests.support.byte_tokenizer import EOS_ID, ByteTokenizer
from tests.support.manual_clock import ManualClock
from tests.support.new_request import new_request


class World:
    """OpenRequests with a record of what it sent."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.requests = OpenRequests(self.clock.now)
        self.sent: list[ToEngine] = []

    def open(self, request: Request | None = None, **fields: object) -> OpenRequest:
        request = request or new_request(**fields)
        tokenizer = ByteTokenizer()
        texts = [
            ChoiceText(tokenizer, TextRules.of(request.sampling, tokenizer.special_ids, frozenset({EOS_ID})))
            for _ in range(request.num_choices)
        ]
        return self.requests.open(request, texts, self.sent.append)

    def hear(self, *rows: tuple[int, str, FinishReason | None], logprobs: tuple[float, ...] = ()) -> None:
        """Rows of (sequence id, text of its tokens, finish reason)."""
        self.requests.hear(
            Updates(
                sequence_ids=tuple(row[0] for row in rows),
                num_tokens=tuple(len(row[1].encode()) for row in rows),
                token_ids=tuple(b"".join(row[1].encode() for row in rows)),
                finish_reasons=tuple(row[2] for row in rows),
                logprobs=logprobs,
                ranks=tuple(range(1, len(logprobs) + 1)),
            )
        )

    def hear_failure(self, sequence_id: int, error: EngineError) -> None:
        self.requests.hear(Updates(failures=((sequence_id, error),)))
