"""Decode at a fixed number of rows and context, and the time to a first token."""

import time
from dataclasses import replace
from statistics import median

from benchmarks.on_gpu.limits import Costs
from benchmarks.on_gpu.place import Place
from benchmarks.on_gpu.rig import Dials, Rig

Figures = dict[str, object]


def costs_of(place: Place, dials: Dials) -> Costs:
    """What the model costs with these dials."""
    return Costs(
        spec=place.spec,
        weight_itemsize=1.0 if dials.quantization == "fp8" else 2.0,
        kv_itemsize=2.0 if dials.kv_dtype == "auto" else 1.0,
        kv_scale_bytes=0 if dials.kv_dtype == "auto" else 4,
    )


def decode_rate(place: Place, rows: int, length: int, dials: Dials | None = None) -> Figures:
    """Tokens a second of `rows` sequences that all decode, `length` tokens long."""
    dials = replace(dials or Dials(), max_running=rows, max_chunk_tokens=place.size(2048, 16))
    dials = replace(dials, max_step_tokens=place.size(8192, 64))
    rig = Rig.make(place, dials)
    num_steps = place.size(200, 6)
    for _ in range(rows):
        rig.add(length - num_steps // 2, 10 * num_steps)
    rig.run(until=lambda: all(len(output) > 10 or place.is_tiny for output in rig.outputs.values()))
    rig.run(until=lambda: sum(step.num_drawn == rows for step in rig.steps) > num_steps)
    steps = [step for step in rig.steps if step.num_drawn == rows][-num_steps:]
    rate = rig.rate(steps)
    rig.abandon()
    limit = costs_of(place, dials).decode_rate(rows, length)
    return {
        "tokens_per_s": rate,
        "limit": limit,
        "fraction": rate / limit,
        "step_ms": 1e3 * rows / rate,
        "setup_s": rig.setup_s,
        "num_recorded": rig.placement.runner.graphs.num_recorded,
        "memory_mib": rig.placement.plan.describe(),
    }


def batch_1(place: Place) -> Figures:
    """One sequence at 1,000 tokens, in bfloat16."""
    return decode_rate(place, 1, place.size(1000, 48))


def batch_1_fp8(place: Place) -> Figures:
    """The same with weights of 8-bit floating numbers."""
    return decode_rate(place, 1, place.size(1000, 48), Dials(quantization="fp8"))


def batch_32(place: Place) -> Figures:
    """32 sequences at 1,000 tokens, in bfloat16."""
    return decode_rate(place, place.size(32, 4), place.size(1000, 48))


def first_token(place: Place) -> Figures:
    """Seconds from a prompt of 2,048 tokens to its first token, nothing else running."""
    length = place.size(2048, 64)
    rig = Rig.make(place, Dials(max_running=8, max_step_tokens=length, max_chunk_tokens=length))
    times = []
    for _ in range(place.size(12, 2)):
        place.wait()
        start = time.perf_counter()
        number = rig.add(length, 1)
        rig.run(until=lambda number=number: bool(rig.outputs[number]))
        times.append(time.perf_counter() - start)
        rig.run()
    floor_s = Costs(spec=place.spec).prefill_s(length)
    found_s = median(times[2:] or times)
    return {"first_token_ms": 1e3 * found_s, "limit_ms": 1e3 * floor_s, "fraction": floor_s / found_s}
