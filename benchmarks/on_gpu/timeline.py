"""A decode step's timeline: what the host does in it, what the device does, and when the device waits.

The host's exposed time is that in which the device has nothing to do: a step's length less the device's.
"""

import time
from collections import defaultdict
from dataclasses import replace
from statistics import median

import torch

from benchmarks.on_gpu.decode import Figures
from benchmarks.on_gpu.place import Place
from benchmarks.on_gpu.rig import Dials, Rig

SHOWN_KERNELS = 12


def timeline(place: Place) -> Figures:
    """Of one row and of many, recorded with two steps in flight, and eagerly with one."""
    figures: Figures = {}
    for rows in (1, place.size(32, 4)):
        dials = Dials(max_running=rows, max_chunk_tokens=place.size(2048, 16))
        for name, own in (
            ("recorded", dials),
            ("eager_one_in_flight", replace(dials, is_eager=True, steps_in_flight=1)),
        ):
            figures[f"{name}_{rows}"] = _timeline_of(place, own, rows)
    return figures


def _timeline_of(place: Place, dials: Dials, rows: int) -> Figures:
    rig = Rig.make(place, dials)
    for _ in range(rows):
        rig.add(place.size(1000, 24), 10_000 if not place.is_tiny else 100)
    rig.run(until=lambda: all(rig.outputs[number] for number in range(rows)))
    rig.run(until=lambda: len(rig.steps) > place.size(40, 8))
    host = _host_times(rig, place.size(100, 6))
    device = _device_times(rig, place.size(20, 3))
    rig.abandon()
    if device:
        host["exposed_ms"] = max(0.0, host["step_ms"] - device["busy_ms"])
    return host | device


def _host_times(rig: Rig, num_steps: int) -> Figures:
    """Medians over steps, in milliseconds, of what the loop does in turn."""
    times: dict[str, list[float]] = defaultdict(list)
    scheduler, runner = rig.scheduler, rig.placement.runner
    for _ in range(num_steps):
        marks = [time.perf_counter()]
        plan = scheduler.plan()
        marks.append(time.perf_counter())
        rig._in_flight.append(runner.begin(plan))
        marks.append(time.perf_counter())
        if len(rig._in_flight) == rig.dials.steps_in_flight:
            step = rig._in_flight.popleft()
            result = runner.finish(step)
            marks.append(time.perf_counter())
            scheduler.commit(step.plan, result)
            marks.append(time.perf_counter())
            for name, first, last in zip(
                ("plan", "begin", "finish", "commit"), marks, marks[1:], strict=False
            ):
                times[name].append(last - first)
            times["step"].append(marks[-1] - marks[0])
    return {f"{name}_ms": 1e3 * median(values) for name, values in times.items()}


def _device_times(rig: Rig, num_steps: int) -> Figures:
    """How long the device is busy in a step, and with what; nothing where there is no GPU."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if rig.place.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    before = len(rig.steps)
    with torch.profiler.profile(activities=activities) as profile:
        rig.run(until=lambda: len(rig.steps) >= before + num_steps)
        rig.place.wait()
    spans = [
        (event.time_range.start, event.time_range.end, event.name)
        for event in profile.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    return busy_times(spans, num_steps) if spans else {}


def busy_times(spans: list[tuple[float, float, str]], num_steps: int) -> Figures:
    """Milliseconds a step in which some kernel runs, and the kernels that take most; spans are in microseconds."""
    busy, reached = 0.0, float("-inf")
    by_name: dict[str, float] = defaultdict(float)
    for start, end, name in sorted(spans):
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
        by_name[name[:80]] += end - start
    most = sorted(by_name.items(), key=lambda item: -item[1])[:SHOWN_KERNELS]
    first, last = min(span[0] for span in spans), max(span[1] for span in spans)
    return {
        "busy_ms": busy / num_steps / 1e3,
        "span_ms": (last - first) / num_steps / 1e3,
        "idle_share": 1.0 - busy / (last - first),
        "kernels_us": {name: us / num_steps for name, us in most},
    }
