"""Sends the orders of a load, in a closed or an open loop, and watches the servers' memory meanwhile."""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.load.answer import Outcome, Target, ask
from benchmarks.load.memory import MemoryWatch
from benchmarks.load.processor import ProcessorTime
from benchmarks.load.workload import Load, Order, plan_orders, plan_warmup


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A load that has been sent: what came of each request, and what it took to send it.

    `client_cpu_s` is processor time of this process. `peak_pss_bytes` and `strangers_cpu_s`, the time that
    neither it nor the server used, are None if no process was watched.
    """

    load: Load
    outcomes: tuple[Outcome, ...]
    wall_s: float
    client_cpu_s: float
    peak_pss_bytes: int | None
    strangers_cpu_s: float | None


async def drive(target: Target, load: Load, pid: int | None = None) -> Run:
    """Send the warm-up, then `load`, and wait for all answers.

    With `pid`, the memory of that process and all below it is watched.
    """
    warmup = await _send_all(target, load, plan_warmup(load, target.form.num_words))
    failed = next((outcome for outcome in warmup if not outcome.is_ok), None)
    if failed:
        raise RuntimeError(f"the warm-up failed: {failed.status} {failed.message}")
    orders = plan_orders(load, target.form.num_words)
    with MemoryWatch.over(pid) as watch:
        earlier = None if pid is None else ProcessorTime.now(pid)
        cpu_s, begin_s = time.process_time(), time.perf_counter()
        outcomes = await _send_all(target, load, orders)
        wall_s = max(outcome.ended_s for outcome in outcomes) - begin_s
        cpu_s = time.process_time() - cpu_s
        strangers_s = ProcessorTime.now(pid).strangers_s(earlier) if pid is not None and earlier else None
    return Run(
        load=load,
        outcomes=tuple(outcomes),
        wall_s=wall_s,
        client_cpu_s=cpu_s,
        peak_pss_bytes=watch.peak_bytes if watch else None,
        strangers_cpu_s=strangers_s,
    )


async def _send_all(target: Target, load: Load, orders: Sequence[Order]) -> list[Outcome]:
    if any(order.due_s is not None for order in orders):
        return await _send_when_due(target, orders)
    waiting = iter(orders)
    async with asyncio.TaskGroup() as group:
        clients = [
            group.create_task(_send_each(target, waiting)) for _ in range(min(load.concurrency, len(orders)))
        ]
    return list(itertools.chain.from_iterable(client.result() for client in clients))


async def _send_each(target: Target, waiting: Iterator[Order]) -> list[Outcome]:
    """One client of a closed loop; all of them take from `waiting`."""
    return [await ask(target, order) for order in waiting]


async def _send_when_due(target: Target, orders: Sequence[Order]) -> list[Outcome]:
    begin_s = time.perf_counter()
    tasks = []
    async with asyncio.TaskGroup() as group:
        for order in orders:
            due_s = begin_s + (order.due_s or 0.0)
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            tasks.append(group.create_task(ask(target, order, due_s)))
    return [task.result() for task in tasks]
