"""`Tokenizer`: text to token ids and back, and messages to a prompt.

Built on `tokenizers` and a sandboxed `jinja2`, from a Hugging Face folder or a GGUF file; neither torch
nor transformers is loaded for it. It knows nothing of requests, and nothing of streaming: that is
`detokenizer`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.errors import CheckpointError, ContextLengthError, RequestError
from engine.messages import Vocabulary
from engine.text.chat_template import ChatOptions, ChatTemplate, RenderedChat
from engine.text.folder_tokenizer import load_folder_tokenizer
from engine.text.gguf_tokenizer import load_gguf_tokenizer
from engine.text.text_bound import TextBound
from engine.text.token_bytes import TokenBytes
from engine.text.tokenizer_parts import TokenizerParts


class Tokenizer:
    """One model's tokenizer.

    It does not change after it is made, and may be used from several threads at once; `encode`
    works outside the interpreter lock.
    """

    def __init__(
        self, parts: TokenizerParts, token_bytes: TokenBytes, chat_template: ChatTemplate | None
    ) -> None:
        self._parts = parts
        self._token_bytes = token_bytes
        self._chat_template = chat_template
        self.vocab_size = parts.backend.get_vocab_size()
        self.eos_ids = parts.eos_ids
        self.special_ids = _special_ids(parts)
        self._bound = TextBound.of_backend(parts.backend)

    @classmethod
    def load(cls, path: Path, *, chat_template: Path | None = None) -> "Tokenizer":
        """Read the tokenizer of a folder in Hugging Face format, or of a `.gguf` file.

        The file `chat_template`, if given, takes the place of the checkpoint's own template. Raises
        CheckpointError if something is missing, malformed, or of a kind that is not supported.
        """
        parts = load_gguf_tokenizer(path) if path.is_file() else load_folder_tokenizer(path)
        source = parts.chat_template if chat_template is None else _read_template(chat_template)
        template = None if source is None else ChatTemplate.compile(source, parts.special_tokens)
        return cls(parts, TokenBytes.of_backend(parts.backend), template)

    @property
    def has_chat_template(self) -> bool:
        """Whether the checkpoint says how messages become a prompt."""
        return self._chat_template is not None

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`, in which the strings of special tokens are those tokens.

        `add_special_tokens` puts the tokens around it that the model expects at the ends of a text,
        if any. Raises RequestError for text that is no valid Unicode (a lone surrogate).
        """
        try:
            # Of this library's ways to encode, the one that works out no offsets, in half the time.
            (encoded,) = self._parts.backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
            return encoded.ids
        except TypeError as error:  # what the library makes of text that has no UTF-8
            raise RequestError("the text is no valid Unicode: it holds a lone surrogate") from error

    def least_tokens(self, text: str) -> int:
        """Known without encoding it: `text` becomes as many tokens as this, or more."""
        return self._bound.least_tokens(text)

    @property
    def start_id(self) -> int | None:
        """The token that a text without any begins with: of the beginning, else of the end; None if neither."""
        names = (self._parts.special_tokens.get(name) for name in ("bos_token", "eos_token"))
        ids = (self._parts.backend.token_to_id(name) for name in names if name)
        return next((token_id for token_id in ids if token_id is not None), None)

    @property
    def template_variables(self) -> frozenset[str]:
        """The further names that the chat template reads; none where there is no template."""
        return frozenset() if self._chat_template is None else self._chat_template.variables

    @property
    def template_source(self) -> str:
        """The text of the chat template; "" where there is none."""
        return "" if self._chat_template is None else self._chat_template.source

    @property
    def reads_tools(self) -> bool:
        """Whether the chat template tells the model which functions it may call."""
        return self._chat_template is not None and self._chat_template.reads_tools

    def render_chat(
        self, messages: Sequence[Mapping[str, object]], options: ChatOptions | None = None
    ) -> RenderedChat:
        """The prompt that the chat template makes of `messages`, up to the answer.

        Special tokens are those the template writes; none are added unless the options say so.
        Raises RequestError if there is no template, or if it refuses the messages, and ContextLengthError
        for text that is certain to fill the context.
        """
        if self._chat_template is None:
            raise RequestError(
                "this model has no chat template; send its prompt to /v1/completions", "messages"
            )
        options = options or ChatOptions()
        text = self._chat_template.render(messages, options)
        if options.max_context is not None and (least := self.least_tokens(text)) >= options.max_context:
            raise ContextLengthError.of_prompt(least, options.max_context, "messages", is_least=True)
        token_ids = self.encode(text, add_special_tokens=options.add_special_tokens)
        return RenderedChat(text=text, token_ids=tuple(token_ids))

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of a whole sequence; bytes that are no UTF-8 become U+FFFD.

        A sentencepiece vocabulary's space in front of a text is not part of it.
        """
        skipped = self.special_ids if skip_special_tokens else frozenset()
        joined = b"".join([self._token_bytes[token_id] for token_id in ids if token_id not in skipped])
        text = joined.decode("utf-8", "replace")
        return text.removeprefix(" ") if self._token_bytes.strips_space else text

    def token_bytes(self, token_id: int) -> bytes:
        """The exact bytes of one token, a special one's name included; none for an id without a token."""
        return self._token_bytes[token_id]

    def vocabulary(self) -> Vocabulary:
        """The exact bytes of every token, for the engine process, which has no tokenizer."""
        return Vocabulary(
            token_bytes=tuple(map(self._token_bytes.__getitem__, range(self.vocab_size))),
            special_ids=tuple(sorted(self.special_ids)),
        )

    def find(self, token: str) -> int | None:
        """The id of the token that is spelled so in the vocabulary; None if there is none."""
        return self._parts.backend.token_to_id(token)


def _read_template(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"the chat template {file} cannot be read: {error}") from error


def _special_ids(parts: TokenizerParts) -> frozenset[int]:
    """Tokens that are no text: those declared special, and those with a role."""
    declared = parts.backend.get_added_tokens_decoder().items()
    special = {token_id for token_id, token in declared if token.special}
    named = map(parts.backend.token_to_id, parts.special_tokens.values())
    return frozenset({*special, *(token_id for token_id in named if token_id is not None), *parts.eos_ids})
