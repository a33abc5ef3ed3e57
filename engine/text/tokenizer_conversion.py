"""Conversion of tokenizers that bring no tokenizer.json, through `transformers`, once.

It runs in a process of its own, since loading `transformers` costs seconds and hundreds of megabytes
that the server should not carry on. The result is kept beside the files it was made from.
"""

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from engine.errors import CheckpointError

logger = logging.getLogger(__name__)

CONVERTED_NAME = "tokenizer.ringserve.json"
SOURCE_NAMES = ("tokenizer.model", "vocab.json", "tekken.json", "tiktoken.model")
TIMEOUT_S = 300
PROGRAM = """
import sys
from transformers import AutoTokenizer
folder, target = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
tokenizer.backend_tokenizer.save(target)
"""


def converted_tokenizer(folder: Path) -> str:
    """The text of a tokenizer.json made from the folder's own tokenizer files.

    It is kept in the folder and used again until those files change; in a folder that cannot be
    written to it is made at each start. Raises CheckpointError where there is nothing to convert, or
    where the conversion fails.
    """
    sources = [file for name in SOURCE_NAMES if (file := folder / name).is_file()]
    if not sources:
        raise CheckpointError(
            f"{folder} holds no tokenizer: it needs tokenizer.json, or one of {', '.join(SOURCE_NAMES)}"
        )
    kept = folder / CONVERTED_NAME
    if kept.is_file() and kept.stat().st_mtime >= max(source.stat().st_mtime for source in sources):
        return kept.read_text("utf-8")
    logger.info("converting tokenizer folder=%s", folder)
    converted = _convert(folder)
    try:
        _keep(converted, kept)
    except OSError as error:
        logger.warning("converted tokenizer is not kept, so each start converts again error=%s", error)
    return converted


def _convert(folder: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="ringserve-tokenizer-") as workplace:
        target = Path(workplace) / "tokenizer.json"
        command = [sys.executable, "-P", "-c", PROGRAM, str(folder), str(target)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise CheckpointError(f"converting the tokenizer in {folder} took over {TIMEOUT_S} s") from error
        if ended.returncode != 0 or not target.is_file():
            reason = (ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"])[-1]
            raise CheckpointError(
                f"the tokenizer in {folder} cannot be converted: {reason}. Put a tokenizer.json there, as "
                "`save_pretrained` of a fast tokenizer writes it; to convert a sentencepiece model here, "
                "install sentencepiece and protobuf"
            )
        return target.read_text("utf-8")


def _keep(converted: str, kept: Path) -> None:
    """Written aside and renamed, so that no other process reads half of it."""
    part = kept.with_name(f"{kept.name}.{os.getpid()}.part")
    try:
        part.write_text(converted, "utf-8")
        part.replace(kept)
    finally:
        part.unlink(missing_ok=True)
