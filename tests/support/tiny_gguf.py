"""GGUF files that hold a tokenizer and nothing else."""

from collections.abc import Mapping
from pathlib import Path

from gguf import GGUFWriter

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def write_tokenizer_gguf(path: Path, vocabulary: Mapping[str, object], **keys: object) -> Path:
    """Write `tokenizer.ggml.*` from a vocabulary (its model, tokens, types, merges or scores, ids).

    `keys` come on top of it, or take its place; one that is None is left out.
    """
    writer = GGUFWriter(path, "llama")
    for name, value in {**vocabulary, **keys}.items():
        key = name if name.startswith("tokenizer.") else f"tokenizer.ggml.{name}"
        match value:
            case bool(flag):
                writer.add_bool(key, flag)
            case int(number):
                writer.add_uint32(key, number)
            case str(text):
                writer.add_string(key, text)
            case list(items):
                writer.add_array(key, items)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path
