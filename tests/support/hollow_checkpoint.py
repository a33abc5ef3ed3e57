"""A folder that looks like a checkpoint from outside, for tests that never open it."""

from pathlib import Path


def write_hollow_checkpoint(folder: Path) -> Path:
    """Write the files by which a checkpoint is recognised, all empty; returns `folder`."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder
