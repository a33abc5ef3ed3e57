"""`TokenizerThreads`: a tokenizer that loads and works beside the event loop.

It knows nothing of the engine process; the engine is ready when both are.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from engine.errors import CheckpointError, EngineError
from engine.messages import Vocabulary

if TYPE_CHECKING:
    from engine.text.chat_template import ChatOptions, RenderedChat
    from engine.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)
T = TypeVar("T")

MAX_THREADS = 2
INLINE_CHARACTERS = 2000  # encoded in well under a millisecond: less than a visit to a thread may take
VALUE_CHARACTERS = 16  # what a value weighs besides its text


def load_tokenizer(path: Path, *, chat_template: Path | None = None) -> "Tokenizer":
    """`Tokenizer.load`, with its libraries: they are imported here, where nothing waits for them."""
    from engine.text.tokenizer import Tokenizer  # noqa: PLC0415  the engine process is started meanwhile

    return Tokenizer.load(path, chat_template=chat_template)


class TokenizerThreads:
    """One tokenizer and the threads that it works on, owned by the event loop.

    What is about no more than `INLINE_CHARACTERS` is done at once in the caller's thread, all else on
    one of `MAX_THREADS` threads, so that the event loop is never held up for long.
    """

    def __init__(self, path: Path, load: "Callable[[Path], Tokenizer]" = load_tokenizer) -> None:
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
        return await self.consult(
            lambda tokenizer: tuple(tokenizer.encode(text, add_special_tokens=add_special_tokens)), len(text)
        )

    async def render_chat(
        self, messages: Sequence[Mapping[str, object]], options: "ChatOptions | None" = None
    ) -> "RenderedChat":
        """The prompt that `messages` make; after `load` only."""
        size = _weight(messages)
        if options is not None:
            size += _weight(options.variables) + _weight(list(options.tools))
        return await self.consult(lambda tokenizer: tokenizer.render_chat(messages, options), size)

    async def consult(self, work: "Callable[[Tokenizer], T]", size: int) -> T:
        """What `work` makes with the tokenizer of about `size` characters or tokens; after `load` only."""
        assert self.tokenizer is not None
        if size <= INLINE_CHARACTERS:
            return work(self.tokenizer)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, self.tokenizer)

    async def vocabulary(self) -> Vocabulary:
        """The bytes of every token; worked out beside the event loop, after `load` only."""
        assert self.tokenizer is not None
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.tokenizer.vocabulary)

    def close(self) -> None:
        """Take no more work; what is begun still ends. May be called twice."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)


def _weight(value: object) -> int:
    """About how many characters of work a template has with `value`; whatever is unknown may be any amount."""
    match value:
        case str():
            return VALUE_CHARACTERS + len(value)
        case None | bool() | int() | float():
            return VALUE_CHARACTERS
        case Mapping():
            return sum(len(str(name)) + _weight(inner) for name, inner in value.items())
        case list() | tuple():
            return VALUE_CHARACTERS + sum(map(_weight, value))
        case _:
            return INLINE_CHARACTERS + 1
