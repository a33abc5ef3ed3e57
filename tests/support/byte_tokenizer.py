"""A tokenizer without files: token id b is byte b, and a few special ids follow. For tests of the front half."""

from collections.abc import Mapping, Sequence

from engine.errors import RequestError
from engine.messages import Vocabulary
from engine.text.chat_template import ChatOptions, RenderedChat

EOS_ID = 257
VOCAB_SIZE = 512
"""Room above the bytes for the tokens by which a scripted engine is told how to behave."""


class ByteTokenizer:
    """Has the interface of `engine.text.tokenizer.Tokenizer`."""

    vocab_size = VOCAB_SIZE
    eos_ids = frozenset({EOS_ID})
    special_ids = frozenset(range(256, VOCAB_SIZE))
    has_chat_template = True

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return list(text.encode())

    def render_chat(
        self, messages: Sequence[Mapping[str, object]], options: ChatOptions | None = None
    ) -> RenderedChat:
        if not messages:
            raise RequestError("there are no messages", "messages")
        text = "".join(f"{message['role']}:{message['content']}\n" for message in messages)
        return RenderedChat(text=text, token_ids=tuple(self.encode(text)))

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return b"".join(self.token_bytes(token_id) for token_id in ids).decode("utf-8", "replace")

    def vocabulary(self) -> Vocabulary:
        token_bytes = tuple(map(self.token_bytes, range(VOCAB_SIZE)))
        return Vocabulary(token_bytes=token_bytes, special_ids=tuple(sorted(self.special_ids)))

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < 256 else b""
