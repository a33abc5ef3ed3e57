import asyncio
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from engine.errors import CheckpointError, RequestError
from engine.messages import Vocabulary
from engine.text.chat_template import ChatOptions, RenderedChat
from engine.text.tokenizer_threads import INLINE_CHARACTERS, TokenizerThreads
from tests.support.byte_tokenizer import ByteTokenizer

SHORT, LONG = "x" * INLINE_CHARACTERS, "x" * (INLINE_CHARACTERS + 1)


class WhereTokenizer(ByteTokenizer):
    """Remembers the threads in which it was used."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        self.threads.append(threading.current_thread())
        return super().encode(text)


def loaded(tokenizer: ByteTokenizer) -> TokenizerThreads:
    return TokenizerThreads(Path("anywhere"), lambda path: tokenizer)


def test_it_loads_from_its_path_beside_the_event_loop():
    seen: list[tuple[Path, threading.Thread]] = []

    def load(path: Path) -> ByteTokenizer:
        seen.append((path, threading.current_thread()))
        return ByteTokenizer()

    async def run() -> bool:
        threads = TokenizerThreads(Path("some/model"), load)
        was_there = threads.tokenizer is not None
        await threads.load()
        threads.close()
        return was_there, threads.tokenizer is not None, threads.error

    assert asyncio.run(run()) == (False, True, None)
    assert seen[0][0] == Path("some/model")
    assert seen[0][1] is not threading.main_thread()


@pytest.mark.parametrize(
    ("raised", "kept"),
    [
        (CheckpointError("no tokenizer.json"), CheckpointError("no tokenizer.json")),
        (ValueError("bug"), CheckpointError("the tokenizer of x cannot be loaded: bug")),
    ],
    ids=["said", "unforeseen"],
)
def test_a_tokenizer_that_does_not_load_is_a_checkpoint_error(raised: Exception, kept: CheckpointError):
    def load(path: Path) -> ByteTokenizer:
        raise raised

    async def run() -> object:
        threads = TokenizerThreads(Path("x"), load)
        await threads.load()
        threads.close()
        return threads.tokenizer, threads.error

    assert asyncio.run(run()) == (None, kept)


@pytest.mark.parametrize(("text", "is_inline"), [(SHORT, True), (LONG, False)], ids=["short", "long"])
def test_only_long_text_is_encoded_on_a_thread(text: str, is_inline: bool):
    tokenizer = WhereTokenizer()

    async def run() -> tuple[int, ...]:
        threads = loaded(tokenizer)
        await threads.load()
        ids = await threads.encode(text)
        threads.close()
        return ids

    assert asyncio.run(run()) == tuple(text.encode())
    assert [thread is threading.main_thread() for thread in tokenizer.threads] == [is_inline]


@pytest.mark.parametrize(
    ("messages", "is_inline"),
    [
        ([{"role": "user", "content": "hello", "name": None}], True),
        ([{"role": "user", "content": SHORT}], False),
        ([{"role": "user", "content": SHORT[:-100]}, {"role": "user", "content": "x" * 100}], False),
        ([{"role": "user", "content": ["short", {"type": "text"}]}], True),
        ([{"role": "user", "content": [{"text": SHORT}]}], False),
        ([{"role": "user", "content": "x"}] * 100, False),
        ([{"role": "user", "content": frozenset("of unknown length")}], False),
    ],
    ids=["short", "one long", "long together", "parts", "long parts", "many", "unknown length"],
)
def test_only_long_chats_are_rendered_on_a_thread(messages: Sequence[Mapping[str, object]], is_inline: bool):
    tokenizer = WhereTokenizer()

    async def run() -> RenderedChat:
        threads = loaded(tokenizer)
        await threads.load()
        rendered = await threads.render_chat(messages)
        threads.close()
        return rendered

    assert asyncio.run(run()) == ByteTokenizer().render_chat(messages)
    assert [thread is threading.main_thread() for thread in tokenizer.threads] == [is_inline]


@pytest.mark.parametrize(
    ("variables", "is_inline"),
    [
        ({"enable_thinking": False, "effort": "low", "limit": 3}, True),
        ({"text": SHORT}, False),
        ({"values": [[1] * 20] * 20}, False),
        ({SHORT: None}, False),
    ],
    ids=["short", "long text", "many values", "a long name"],
)
def test_long_variables_are_rendered_on_a_thread(variables: Mapping[str, object], is_inline: bool):
    tokenizer = WhereTokenizer()

    async def run() -> RenderedChat:
        threads = loaded(tokenizer)
        await threads.load()
        rendered = await threads.render_chat(
            [{"role": "user", "content": "x"}], ChatOptions(variables=variables)
        )
        threads.close()
        return rendered

    asyncio.run(run())

    assert [thread is threading.main_thread() for thread in tokenizer.threads] == [is_inline]


@pytest.mark.parametrize(("size", "is_inline"), [(INLINE_CHARACTERS, True), (INLINE_CHARACTERS + 1, False)])
def test_large_work_is_done_on_a_thread(size: int, is_inline: bool):
    async def run() -> threading.Thread:
        threads = loaded(ByteTokenizer())
        await threads.load()
        where = await threads.consult(lambda tokenizer: threading.current_thread(), size)
        threads.close()
        return where

    assert (asyncio.run(run()) is threading.main_thread()) == is_inline


def test_an_error_of_the_template_comes_back_from_the_thread():
    class Refusing(ByteTokenizer):
        def render_chat(
            self, messages: Sequence[Mapping[str, object]], options: object = None
        ) -> RenderedChat:
            raise RequestError("roles must alternate", "messages")

    async def run() -> None:
        threads = loaded(Refusing())
        await threads.load()
        for text in (SHORT, LONG):
            with pytest.raises(RequestError, match="alternate"):
                await threads.render_chat([{"role": "user", "content": text}])
        threads.close()

    asyncio.run(run())


def test_the_event_loop_goes_on_while_long_text_is_encoded():
    may_go_on = threading.Event()

    class Slow(ByteTokenizer):
        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            assert may_go_on.wait(10)
            return []

    async def run() -> tuple[int, ...]:
        threads = loaded(Slow())
        await threads.load()
        encoding = asyncio.create_task(threads.encode(LONG))
        await asyncio.sleep(0)
        may_go_on.set()  # by the event loop: if it were held up, nobody would
        ids = await encoding
        threads.close()
        return ids

    assert asyncio.run(run()) == ()


def test_work_that_is_begun_ends_although_it_is_closed():
    may_go_on = threading.Event()

    class Slow(ByteTokenizer):
        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            assert may_go_on.wait(10)
            return [1]

    async def run() -> tuple[int, ...]:
        threads = loaded(Slow())
        await threads.load()
        encoding = asyncio.create_task(threads.encode(LONG))
        await asyncio.sleep(0)
        threads.close()
        threads.close()
        may_go_on.set()
        return await encoding

    assert asyncio.run(run()) == (1,)


def test_closing_before_loading_is_safe():
    threads = loaded(ByteTokenizer())

    threads.close()

    assert threads.tokenizer is None


def test_the_vocabulary_is_worked_out_beside_the_event_loop():
    threads_seen = []

    class Watched(ByteTokenizer):
        def vocabulary(self) -> Vocabulary:
            threads_seen.append(threading.current_thread())
            return super().vocabulary()

    async def run() -> Vocabulary:
        threads = loaded(Watched())
        await threads.load()
        try:
            return await threads.vocabulary()
        finally:
            threads.close()

    assert asyncio.run(run()) == ByteTokenizer().vocabulary()
    assert threads_seen != [threading.main_thread()]
