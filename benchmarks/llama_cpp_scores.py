"""Log-probabilities of a text's tokens by llama-cpp-python, which has an environment of its own.

Reads {"model", "token_ids"} from standard input and writes a JSON list to standard output. All tokens
are one batch, as one window.
"""

import json
import sys

import llama_cpp
import numpy as np


def main() -> None:
    parameters = llama_cpp.llama_model_default_params

    def without_repacking() -> llama_cpp.llama_model_params:
        """As llama-server's --no-repack: its AMX path fails at its first product on some machines."""
        plain = parameters()
        plain.use_extra_bufts = False
        return plain

    llama_cpp.llama_cpp.llama_model_default_params = without_repacking  # `Llama` has no argument for it
    question = json.load(sys.stdin)
    token_ids = question["token_ids"]
    size = len(token_ids)
    model = llama_cpp.Llama(
        question["model"], n_ctx=size, n_batch=size, n_ubatch=512, logits_all=True, verbose=False
    )
    model.eval(token_ids)
    logits = np.asarray(model.scores[: size - 1], dtype=np.float64)
    peaks = logits.max(axis=-1)
    totals = peaks + np.log(np.exp(logits - peaks[:, None]).sum(axis=-1))
    found = logits[np.arange(size - 1), token_ids[1:]] - totals
    json.dump(found.tolist(), sys.stdout)


if __name__ == "__main__":
    main()
