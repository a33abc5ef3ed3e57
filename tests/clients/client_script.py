"""Running a client's script in its own environment: JSON in, JSON out."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

SCRIPTS = Path(__file__).parent / "scripts"
SCRIPT_TIMEOUT_S = 180


def run_script(command: Sequence[str | Path], url: str, **arguments: object) -> dict[str, object]:
    """What the script answers: it is given the server's address and the arguments as one JSON object.

    Nothing of this process's environment that could lead a client elsewhere goes along. Python may keep
    what it compiles: the client's packages were installed uncompiled.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
        and not name.startswith(("OPENAI_", "LITELLM_", "HF_"))
    }
    offline = {"HF_HUB_OFFLINE": "1", "LANGSMITH_TRACING": "false", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(
        [str(word) for word in command] + [json.dumps({"url": url, **arguments})],
        env={**kept, **offline, "OPENAI_API_KEY": "any"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SCRIPT_TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    answer = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(answer, dict)
    return answer
