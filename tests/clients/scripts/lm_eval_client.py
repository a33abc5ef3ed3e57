"""lm-eval: one of our task files through one of its API models; the score, and what each document got."""

import json
import sys

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

asked = json.loads(sys.argv[1])
results = simple_evaluate(
    model=asked["lm"],
    model_args={"model": asked["model"], "max_retries": 1, **asked["model_args"]},
    tasks=[asked["task"]],
    task_manager=TaskManager(include_path=asked["task_folder"], include_defaults=False),
    apply_chat_template=asked["lm"].endswith("chat-completions"),
    bootstrap_iters=0,
    log_samples=True,
    random_seed=0,
)
answer = {
    "scores": {
        name: value for name, value in results["results"][asked["task"]].items() if isinstance(value, float)
    },
    "samples": [
        {"id": sample["doc_id"], "answers": sample["filtered_resps"]}
        for sample in sorted(results["samples"][asked["task"]], key=lambda sample: sample["doc_id"])
    ],
}
sys.stdout.write(json.dumps(answer, default=str) + "\n")
