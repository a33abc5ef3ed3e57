"""`TokenizerThreads`: a tokenizer that loads and works beside the event loop.

It knows nothing of the engine process; the engine is ready when both are.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from engine.errors import CheckpointError, EngineError
from engine.messages import Vocabulary
from engine.text.chat_template import ChatOptions, RenderedChat
from engine.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)
T = TypeVar("T")

MAX_THREADS = 2
INLINE_CHARACTERS = 2000  # encoded in well under a millisecond: less than a visit to a thread may take


class TokenizerThreads:
    """One tokenizer and the threads that it works on, owned by the event loop.

    Text of up to `INLINE_CHARACTERS` is encoded at once in the caller's thread, longer text on one
    of `MAX_THREADS` threads, so that the event loop is never held up for long.
    """

    def __init__(self, path: Path, load: Callable[[Path], Tokenizer] = Tokenizer.load) -> None:
        self.tokenizer: Tokenizer | None = None
        self.error: EngineError | None = None
        self._path = path
        self._load = load
        self._threads: ThreadPoolExecutor | None = None

    async def load(self) -> None:
        """Load the tokenizer, once; afterwards `tokenizer` is set, or else `error`."""
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="tokenizer")
        loop = asyncio.get_running_loop()
        try:
            self.tokenizer = await loop.run_in_executor(self._threads, self._load, self._path)
        except EngineError as error:
            self.error = error
        except Exception as error:  # the top of a thread; whatever it was, it would happen again
            logger.exception("tokenizer failed to load path=%s", self._path)
            self.error = CheckpointError(f"the tokenizer of {self._path} cannot be loaded: {error}")

    async def encode(self, text: str, *, add_special_tokens: bool = True) -> tuple[int, ...]:
        """Token ids of `text`, by default with those the model expects around it; after `load` only."""
        assert self.tokenizer is not None
        work = partial(self.tokenizer.encode, text, add_special_tokens=add_special_tokens)
        return tuple(work() if len(text) <= INLINE_CHARACTERS else await self._on_thread(work))

    async def render_chat(
        self, messages: Sequence[Mapping[str, object]], options: ChatOptions | None = None
    ) -> RenderedChat:
        """The prompt that `messages` make; after `load` only."""
        assert self.tokenizer is not None
        work = partial(self.tokenizer.render_chat, messages, options)
        is_short = _num_characters(messages) <= INLINE_CHARACTERS and not (options and options.tools)
        return work() if is_short else await self._on_thread(work)

    async def vocabulary(self) -> Vocabulary:
        """The bytes of every token; worked out beside the event loop, after `load` only."""
        assert self.tokenizer is not None
        return await self._on_thread(self.tokenizer.vocabulary)

    def close(self) -> None:
        """Take no more work; what is begun still ends. May be called twice."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _num_characters(messages: Sequence[Mapping[str, object]]) -> int:
    """About how long the prompt becomes; whatever is no string may hold any amount of text."""
    return sum(
        len(value) if isinstance(value, str) else INLINE_CHARACTERS + 1
        for message in messages
        for value in message.values()
        if value is not None
    )
