"""The command `ringserve serve` as it is, but for the faults that single tokens and texts bring about.

Its engine process is `faulty_engine`. Here a text that holds `FAULTY_TEXT` cannot be encoded, whole or
in a thread, `FAULTY_SPELLING` has no bytes, and an event of `FAULTY_EVENT` cannot be rendered.
"""

import sys
from pathlib import Path

from engine import Engine, TokenEvent, resolve
from engine.logs import configure_logging
from engine.text.tokenizer import Tokenizer
from server.serving import StopSignal, bind, serve_engine
from server.settings import Settings

FAULTY_TEXT = "poison"
FAULTY_SPELLING, FAULTY_EVENT = 250, 251
PROGRAM = Path(__file__).with_name("faulty_engine.py")


class FaultyTokenizer(Tokenizer):
    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        if FAULTY_TEXT in text:
            raise MemoryError("planted")
        return super().encode(text, add_special_tokens=add_special_tokens)

    def token_bytes(self, token_id: int) -> bytes:
        if token_id == FAULTY_SPELLING:
            raise MemoryError("planted")
        return super().token_bytes(token_id)


def plant_rendering() -> None:
    """Let chunks of completions fail at `FAULTY_EVENT`."""
    from server.translate.completions import CompletionChunks

    add = CompletionChunks.add

    def add_or_fail(chunks: CompletionChunks, prompt_index: int, event: TokenEvent) -> bytes:
        if FAULTY_EVENT in event.token_ids:
            raise MemoryError("planted")
        return add(chunks, prompt_index, event)

    CompletionChunks.add = add_or_fail


def main() -> int:
    settings = Settings.from_command_line(sys.argv[1:])
    configure_logging(settings.log_level, settings.log_format)
    plant_rendering()
    with StopSignal.installed() as stop, bind(settings.host, settings.port) as listener:
        config = settings.to_engine_config(resolve(settings.model, cache_dir=settings.cache_dir))
        command = (sys.executable, str(PROGRAM))
        engine = Engine(config, load_tokenizer=FaultyTokenizer.load, command=command)
        return serve_engine(settings, engine, listener, stop)


if __name__ == "__main__":
    sys.exit(main())
