"""Law 11: each process loads its own half and nothing heavy; every message survives the border.

What survives pickling is tried, message by message, in `tests/engine/test_messages.py`.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import server
from tests.support.native import needs_native
from tests.support.tiny_model import write_tiny_gguf

CORE_MODULES = {
    "engine.__main__",
    "engine.batch",
    "engine.build",
    "engine.cache",
    "engine.execution",
    "engine.intake",
    "engine.kernels",
    "engine.layers",
    "engine.loop",
    "engine.model_spec",
    "engine.models",
    "engine.plan",
    "engine.scheduling",
}
TOO_HEAVY = {"torch", "transformers"}
FRONT_MODULES = {
    "engine.engine",
    "engine.engine_process",
    "engine.open_requests",
    "engine.signs_of_life",
    "engine.stream",
    "engine.supervisor",
    "engine.text",
}


# Builds an engine as its process does, and computes steps in which everything is asked of a row.
ENGINE = """
import sys
from engine.build import build_engine
from engine.config import CacheConfig, EngineConfig, ModelConfig
from engine.plan import Chunk, ChunkTable, Draw, StepPlan
from engine.request import SamplingParams

class Nowhere:
    def put(self, message): pass

model = ModelConfig(path=sys.argv[1], model_id="tiny", kernels=sys.argv[2])
config = EngineConfig(model=model, cache=CacheConfig(kv_cache_bytes=1 << 20))
runner = build_engine(config, lambda: None, Nowhere()).loop.runner
own = SamplingParams(
    max_tokens=1, seed=0, top_p=0.9, logprobs=True, num_top_logprobs=2, repetition_penalty=1.3,
    presence_penalty=0.5, dry_multiplier=0.8, logit_bias=((3, 1.0),), bad_words_ids=((9,),),
)
for asked in (own, SamplingParams(max_tokens=1, seed=0)):
    draw = Draw(sampling=asked, choice=0, history=(5, 6, 7), num_prompt=3, banned_ids=(8,))
    chunk = Chunk(1, 0, 3, (5, 6, 7), (ChunkTable(0, (0,)),), draw=draw, score_from=0, score_ids=(6,))
    runner.finish(runner.begin(StepPlan(chunks=(chunk,))))
"""


def loaded_by(code: str, *arguments: str) -> set[str]:
    """Names of the modules that a new interpreter has loaded after `code`, and of their packages."""
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = done.stdout.split()
    return {
        ".".join(parts[:end])
        for name in names
        for parts in [name.split(".")]
        for end in range(1, len(parts) + 1)
    }


def server_modules() -> list[str]:
    root = Path(server.__file__).parent
    paths = sorted(path for path in root.rglob("*.py") if path.name != "__main__.py")
    parts = [path.relative_to(root.parent).with_suffix("").parts for path in paths]
    return [".".join(part for part in found if part != "__init__") for found in parts]


def test_the_engines_front_half_loads_no_core_module_and_nothing_heavy():
    loaded = loaded_by("import engine\nfor name in engine.__all__: getattr(engine, name)")

    assert loaded >= FRONT_MODULES
    assert loaded & (CORE_MODULES | TOO_HEAVY) == set()


def test_all_of_the_server_loads_no_core_module_and_nothing_heavy():
    loaded = loaded_by("\n".join(f"import {name}" for name in server_modules()))

    assert "server.routes" in loaded
    assert loaded & (CORE_MODULES | TOO_HEAVY) == set()


@pytest.mark.parametrize("module", ["engine.messages", "engine.channel", "engine.config", "engine.logs"])
def test_what_both_halves_share_loads_neither(module: str):
    loaded = loaded_by(f"import {module}")

    assert loaded & (CORE_MODULES | FRONT_MODULES | TOO_HEAVY | {"server", "fastapi"}) == set()


@needs_native
def test_an_engine_on_native_kernels_serves_a_gguf_file_without_torch(tmp_path: Path):
    path = str(write_tiny_gguf(tmp_path, "Q4_1"))

    native, reference = (loaded_by(ENGINE, path, kernels) for kernels in ("native", "reference"))

    assert native & TOO_HEAVY == set()
    assert reference & TOO_HEAVY == {"torch"}
    assert "engine.execution.native_runner" in native
