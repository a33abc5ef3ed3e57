"""A tokenizer from a folder in Hugging Face format: tokenizer.json and the files around it.

tokenizer.json is taken as it is, the tokens it puts around a text included (`add_bos_token` in
tokenizer_config.json has no say beside it, as in transformers 5); the other files name special
tokens, the chat template, and what ends a sequence. A folder without tokenizer.json is converted first.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import tokenizers

from engine.errors import CheckpointError
from engine.text.tokenizer_conversion import converted_tokenizer
from engine.text.tokenizer_parts import TokenizerParts

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
Settings = Mapping[str, object]


def load_folder_tokenizer(folder: Path) -> TokenizerParts:
    """The folder's tokenizer; CheckpointError names the file that is missing or malformed."""
    file = folder / "tokenizer.json"
    backend = _load_backend(file, folder)
    config = _read_settings(folder / "tokenizer_config.json")
    _add_tokens(backend, config)
    named = _named_tokens({**_read_settings(folder / "special_tokens_map.json"), **config})
    return TokenizerParts(
        backend=backend,
        special_tokens=named,
        eos_ids=_eos_ids(backend, folder, named),
        chat_template=_chat_template(folder, config),
    )


def _load_backend(file: Path, folder: Path) -> tokenizers.Tokenizer:
    converted = None if file.is_file() else converted_tokenizer(folder)
    try:
        if converted is None:
            backend = tokenizers.Tokenizer.from_file(str(file))
        else:
            backend = tokenizers.Tokenizer.from_str(converted)
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{file} cannot be read as a tokenizer: {error}") from error
    backend.no_truncation()
    backend.no_padding()
    return backend


def _read_settings(file: Path) -> Settings:
    """The file's object; empty where there is no such file."""
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{file} holds a {type(settings).__name__} where an object belongs")
    return settings


def _add_tokens(backend: tokenizers.Tokenizer, config: Settings) -> None:
    """Mark the tokens that only tokenizer_config.json declares, as later fine-tunes do."""
    declared = config.get("added_tokens_decoder")
    known = backend.get_added_tokens_decoder()
    if not isinstance(declared, dict):
        return
    missing = {int(key): fields for key, fields in declared.items() if int(key) not in known}
    for token_id, fields in sorted(missing.items()):
        flags = {name: bool(fields.get(name)) for name in ("single_word", "lstrip", "rstrip", "normalized")}
        is_special = bool(fields.get("special"))
        token = tokenizers.AddedToken(str(fields.get("content")), special=is_special, **flags)
        (backend.add_special_tokens if is_special else backend.add_tokens)([token])
        if backend.token_to_id(token.content) != token_id:
            raise CheckpointError(
                f"tokenizer_config.json gives {token.content!r} the id {token_id}, "
                f"but in tokenizer.json it becomes {backend.token_to_id(token.content)}"
            )


def _named_tokens(settings: Settings) -> dict[str, str]:
    """The tokens with a role; each is written as a string, or as an object with its content."""
    named: dict[str, str] = {}
    for name in NAMED_TOKENS:
        match settings.get(name):
            case str(content) | {"content": str(content)}:
                named[name] = content
    return named


def _eos_ids(backend: tokenizers.Tokenizer, folder: Path, named: Mapping[str, str]) -> frozenset[int]:
    """What config.json and generation_config.json say together, else the tokenizer's own end of sequence."""
    stated: set[int] = set()
    for file in ("config.json", "generation_config.json"):
        match _read_settings(folder / file).get("eos_token_id"):
            case int(token_id):
                stated.add(token_id)
            case [*token_ids]:
                stated.update(token_id for token_id in token_ids if isinstance(token_id, int))
    own_id = backend.token_to_id(named.get("eos_token", ""))
    return frozenset(stated or ({own_id} if own_id is not None else ()))


def _chat_template(folder: Path, config: Settings) -> str | None:
    """The template in the file of its own, else the one in the configuration; of several, the default."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    match config.get("chat_template", _read_settings(folder / "chat_template.json").get("chat_template")):
        case str(template):
            return template
        case [*named_templates]:
            for entry in named_templates:
                match entry:
                    case {"name": "default", "template": str(template)}:
                        return template
    return None
