"""What the server process loads as it starts, and when: each library costs every start its time."""

import subprocess
import sys

import pytest

PHASES = {
    "before the engine process is started": (
        "import server.__main__, server.serving, engine; engine.Engine",
        {"fastapi", "starlette", "uvicorn", "sse_starlette", "jinja2", "tokenizers", "prometheus_client"},
    ),
    "until it serves": (
        "import server.__main__, server.serving, server.http_server, engine; engine.Tokenizer",
        set(),
    ),
}
NEVER = {"openai", "httpx", "llguidance", "gguf", "huggingface_hub", "safetensors", "torch", "transformers"}
"""What single subcommands, single requests or the engine process need."""


@pytest.mark.parametrize("phase", PHASES)
def test_the_server_loads_at_its_start_only_what_it_needs_by_then(phase):
    imports, later = PHASES[phase]
    code = f"{imports}\nimport sys\nprint(*sorted({later | NEVER!r} & set(sys.modules)))"

    ended = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )

    assert ended.stdout.split() == []
