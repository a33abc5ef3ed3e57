"""The engine process as it is, with weights drawn at random where a checkpoint's would be read."""

import sys
from collections.abc import Callable
from pathlib import Path

import engine.__main__ as program
import engine.execution.torch_back_end
from benchmarks.on_gpu.shapes import random_decoder
from engine.layers.kit import LayerKit
from engine.model_spec import ModelSpec
from engine.models.decoder import Decoder

WHERE_READ = engine.execution.torch_back_end


def drawn_decoder(
    _path: Path, spec: ModelSpec, kit: LayerKit, on_progress: Callable[[int, int], None], _through: object
) -> Decoder:
    """Stands for `load_decoder`."""
    decoder = random_decoder(spec, kit)
    on_progress(1, 1)
    return decoder


if __name__ == "__main__":
    WHERE_READ.load_decoder = drawn_decoder
    sys.exit(program.main(sys.argv[1:]))
