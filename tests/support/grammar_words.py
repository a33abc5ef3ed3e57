"""Whether a grammar takes a text, asked of the library that enforces it, with tokens that are bytes."""

import json
from collections.abc import Mapping

from llguidance import LLMatcher, LLTokenizer

from tests.support.tiny_tokenizer import EOS_ID, VOCAB_SIZE, _tokenizer_json


class GrammarWords:
    """Byte tokens, and `special` tokens: a text is spelled with those wherever they occur in it."""

    def __init__(self, *special: str) -> None:
        spec = _tokenizer_json()
        added = spec["added_tokens"]
        assert isinstance(added, list)
        ids = range(VOCAB_SIZE, VOCAB_SIZE + len(special))
        self.special_ids: Mapping[str, int] = dict(zip(special, ids, strict=True))
        fillers = [f"<|filler {i}|>" for i in range(added[-1]["id"] + 1, VOCAB_SIZE)]
        for token_id, name in enumerate([*fillers, *special], added[-1]["id"] + 1):
            added.append({**added[0], "id": token_id, "content": name})
        self._tokenizer = LLTokenizer(json.dumps(spec), eos_token=EOS_ID)

    def takes(self, grammar: str, text: str) -> bool:
        """Whether the whole of `text` may be said, and nothing has to follow it."""
        matcher = LLMatcher(self._tokenizer, grammar)
        assert not matcher.is_error(), f"{matcher.get_error()}\n{grammar}"
        return all(matcher.consume_tokens([i]) for i in self._spelled(text)) and bool(matcher.is_accepting())

    def _spelled(self, text: str) -> list[int]:
        ids, here = [], 0
        while here < len(text):
            name = next((name for name in self.special_ids if text.startswith(name, here)), None)
            ids += [self.special_ids[name]] if name else list(text[here].encode())
            here += len(name) if name else 1
        return ids
