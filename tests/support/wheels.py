"""Wheels with one small file in them, and an index that is a folder."""

import hashlib
import zipfile
from pathlib import Path

from engine.wheel_model import WheelModel

CONTENT = b"GGUF of a model that is very small" * 1000
MEMBER = "tiny_model/tiny.gguf"


def write_wheel(folder: Path, content: bytes = CONTENT, compression: int = zipfile.ZIP_STORED) -> WheelModel:
    """Write tiny-model 0.1 into the folder; how to fetch its file."""
    wheel = folder / "tiny_model-0.1-py3-none-any.whl"
    info = "tiny_model-0.1.dist-info"
    with zipfile.ZipFile(wheel, "w", compression) as archive:
        archive.writestr(MEMBER, content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 0.1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return WheelModel(
        name="tiny-model",
        requirement="tiny-model==0.1",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member=MEMBER,
        sha256=hashlib.sha256(content).hexdigest(),
        num_bytes=len(content),
    )
