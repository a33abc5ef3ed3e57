"""Law 8: every stream ends with exactly one finish reason per choice or one error, at any interleaving."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import EngineCrashedError, EngineError, EngineUnavailableError, RequestError, StepError
from engine.messages import Abort, Accepted, Drained, Finish, Refused, ToEngine, Updates
from engine.open_request import OpenRequest
from engine.open_requests import OpenRequests
from engine.request import FinishReason
from engine.text.detokenizer import ChoiceText, TextRules
from tests.support.byte_tokenizer import ByteTokenizer
from tests.support.new_request import new_request

NUM_REQUESTS, NUM_CHOICES, STOP = 3, 2, "ab"
EXPECTED_ERRORS = {EngineCrashedError, EngineUnavailableError, RequestError, StepError}
requests = st.integers(0, NUM_REQUESTS - 1)
choices = st.integers(0, NUM_CHOICES - 1)
text = st.text("abxé", max_size=3)
reasons = st.sampled_from([None, None, None, FinishReason.STOP, FinishReason.LENGTH])
rows = st.lists(st.tuples(requests, choices, text, reasons), max_size=4, unique_by=lambda row: row[:2])
actions = st.one_of(
    st.tuples(st.just("rows"), rows),
    st.tuples(st.just("failure"), requests, choices),
    st.tuples(st.just("accepted"), requests),
    st.tuples(st.just("refused"), requests),
    st.tuples(st.just("close"), requests),
    st.tuples(st.just("let readers read")),
    st.tuples(st.just("cancel reader"), requests),
    st.tuples(st.just("crash")),
    st.tuples(st.just("drained")),
)


@dataclass
class Reader:
    """Reads one stream, perhaps with interruptions, and keeps account of what it saw."""

    opened: OpenRequest
    is_closed: bool = False
    texts: dict[int, str] = field(default_factory=dict)
    reasons: list[tuple[int, FinishReason]] = field(default_factory=list)
    errors: list[EngineError] = field(default_factory=list)
    num_stops: int = 0
    task: asyncio.Task[None] | None = None

    def read(self) -> None:
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for event in self.opened.stream:
                assert event.choice not in [choice for choice, _ in self.reasons], "news after the end"
                assert all(entry.logprob == -float(entry.token_id) for entry in event.logprobs)
                self.texts[event.choice] = self.texts.get(event.choice, "") + event.text
                if event.finish_reason is not None:
                    self.reasons.append((event.choice, event.finish_reason))
            self.num_stops += 1
        except EngineError as error:
            self.errors.append(error)

    async def interrupt(self) -> None:
        if self.task is not None and not self.task.done():
            self.task.cancel()
            await asyncio.wait({self.task})
            self.read()


class World:
    def __init__(self, with_logprobs: list[bool]) -> None:
        self.sent: list[ToEngine] = []
        self.requests = OpenRequests()
        self.readers = [self._open(number, asked) for number, asked in enumerate(with_logprobs)]

    def _open(self, number: int, with_logprobs: bool) -> Reader:
        request = new_request(
            request_id=str(number), num_choices=NUM_CHOICES, stop=(STOP,), logprobs=with_logprobs
        )
        texts = [ChoiceText(ByteTokenizer(), TextRules(stop=(STOP,))) for _ in range(NUM_CHOICES)]
        reader = Reader(self.requests.open(request, texts, self.sent.append))
        reader.read()
        return reader

    async def act(self, action: tuple) -> None:
        match action:
            case ("rows", found):
                self.requests.hear(self.updates(found))
            case ("failure", number, choice):
                sequence_id = self.readers[number].opened.first_sequence_id + choice
                self.requests.hear(Updates(failures=((sequence_id, StepError("boom")),)))
            case ("accepted", number):
                self.requests.hear(Accepted(request_id=str(number)))
            case ("refused", number):
                self.requests.hear(Refused(request_id=str(number), error=RequestError("no")))
            case ("close", number):
                self.readers[number].is_closed = True
                await self.readers[number].opened.stream.aclose()
            case ("let readers read",):
                for _ in range(3):
                    await asyncio.sleep(0)
            case ("cancel reader", number):
                await self.readers[number].interrupt()
            case ("crash",):
                self.requests.end_all(EngineCrashedError("gone"))
            case ("drained",):
                self.requests.hear(Drained())

    def updates(self, found: list[tuple[int, int, str, FinishReason | None]]) -> Updates:
        encoded = [row[2].encode() for row in found]
        opened = [self.readers[row[0]].opened for row in found]
        asked = [ids for of, ids in zip(opened, encoded, strict=True) if of.request.sampling.logprobs]
        return Updates(
            sequence_ids=tuple(of.first_sequence_id + row[1] for of, row in zip(opened, found, strict=True)),
            num_tokens=tuple(map(len, encoded)),
            token_ids=tuple(b"".join(encoded)),
            logprobs=tuple(-float(token_id) for token_id in b"".join(asked)),
            ranks=tuple(b"".join(asked)),
            finish_reasons=tuple(row[3] for row in found),
        )

    async def end(self) -> None:
        """The engine process dies; whatever was still open ends with that."""
        self.requests.end_all(EngineCrashedError("gone"))
        await asyncio.wait_for(asyncio.wait({reader.task for reader in self.readers}), 10)
        for reader in self.readers:
            assert [event async for event in reader.opened.stream] == [], "news after the end"


def check(world: World) -> None:
    for reader in world.readers:
        request_id = reader.opened.request.request_id
        num_aborts = world.sent.count(Abort(request_id=request_id))
        assert len(reader.errors) + reader.num_stops == 1, "a stream ends once"
        assert {type(error) for error in reader.errors} <= EXPECTED_ERRORS
        if not reader.errors and not reader.is_closed:
            assert sorted(choice for choice, _ in reader.reasons) == list(range(NUM_CHOICES))
            assert num_aborts == 0
        assert num_aborts <= 1
        finished = [
            message
            for message in world.sent
            if message == Abort(request_id=request_id)
            or (isinstance(message, Finish) and message.request_id == request_id)
        ]
        assert len(finished) == len(set(finished)), "a choice is finished once"
        if num_aborts:
            assert isinstance(finished[-1], Abort), "nothing is said of a request after its abort"
        assert all(STOP not in shown for shown in reader.texts.values())
    assert world.requests.num_sequences == 0


@given(
    with_logprobs=st.lists(st.booleans(), min_size=NUM_REQUESTS, max_size=NUM_REQUESTS),
    script=st.lists(actions, max_size=25),
)
@settings(max_examples=300, derandomize=True)
def test_every_stream_ends_once(with_logprobs: list[bool], script: list[tuple]):
    async def run() -> None:
        world = World(with_logprobs)
        for action in script:
            await world.act(action)
        await world.end()
        check(world)

    asyncio.run(run())


@given(cut=st.integers(0, 12), crash=st.booleans())
@settings(max_examples=30, derandomize=True)
def test_an_ending_at_any_moment_lets_the_text_before_it_through(cut: int, crash: bool):
    async def run() -> tuple[str, int, int]:
        world = World([False] * NUM_REQUESTS)
        reader = world.readers[0]
        for character in ("x" * 12)[:cut]:
            await world.act(("rows", [(0, 0, character, None)]))
        if crash:
            await world.act(("crash",))
        else:
            await world.act(("rows", [(0, 0, "", FinishReason.LENGTH), (0, 1, "", FinishReason.LENGTH)]))
        await world.end()
        return reader.texts.get(0, ""), len(reader.errors), reader.num_stops

    assert asyncio.run(run()) == ("x" * cut, int(crash), int(not crash))
