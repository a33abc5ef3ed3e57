"""What a sequence holds is bounded by its window, and what it held comes back."""

import random

import pytest

from tests.support.threaded_engine import threaded_engine, tiny_request
from tests.support.tiny_model import write_tiny_checkpoint

WINDOW = 8
BLOCK_SIZE = 4
CHUNK = 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "mistral", window=WINDOW)


def test_a_generation_of_twenty_windows_holds_at_most_its_ring(checkpoint):
    most = 1 + -(-(WINDOW + CHUNK - 2) // BLOCK_SIZE)
    with threaded_engine(
        checkpoint, cache={"block_size": BLOCK_SIZE}, scheduling={"max_chunk_tokens": CHUNK}
    ) as engine:
        request = tiny_request("long", tuple(range(1, 31)), max_tokens=20 * WINDOW)
        ((output,),) = engine.run(request)
        held = engine.max_blocks_held

    assert len(output.token_ids) == 20 * WINDOW
    assert 0 < held <= most


def test_all_blocks_are_free_after_a_thousand_random_requests(checkpoint):
    rng = random.Random(7)
    with threaded_engine(
        checkpoint, cache={"kv_cache_bytes": 1 << 16}, scheduling={"max_chunk_tokens": 16}
    ) as engine:
        outputs = []
        for number in range(1000):
            prompt = tuple(rng.randrange(1, 250) for _ in range(rng.randrange(1, 30)))
            n = rng.choice((1, 1, 1, 2, 3))
            own = engine.submit(
                tiny_request(
                    f"r{number}", prompt, n=n, max_tokens=rng.randrange(1, 8), temperature=1.0, seed=number
                )
            )
            if rng.random() < 0.2:
                engine.abort(f"r{number}")
            elif rng.random() < 0.1:
                engine.finish(f"r{number}", 0)
                outputs += own[1:]
            else:
                outputs += own
            if number % 50 == 49:
                engine.wait(outputs)
        engine.wait(outputs)
        engine.wait_idle()
        num_free = engine.load.num_free_blocks

    assert all(output.error is None for output in outputs)
    assert num_free == engine.built.card.num_blocks
