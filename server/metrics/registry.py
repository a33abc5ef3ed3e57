"""`Registry`: the figures of one server, and those of its two processes as the kernel tells them.

A scrape has two parts. What changes in the event loop is read there, at one moment; the files of
/proc, which a busy machine is slow to give, and the text format, which is most of the work, may be
left to another thread.
"""

from collections.abc import Iterable, Iterator
from itertools import chain

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector as PrometheusCollector

from engine import Engine
from server.metrics.collector import PREFIX, Collector
from server.metrics.http import HttpTally

NO_PROCESS = "none"  # there is no such folder in /proc, so nothing is told


class Snapshot(PrometheusCollector):
    """The families of one scrape: some read already, others when it is collected, in any thread."""

    def __init__(self, families: Iterable[Metric], processes: PrometheusCollector) -> None:
        self._families = tuple(families)
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        """Every family, once."""
        return chain(self._families, self._processes.collect())


class Registry:
    """Everything that a scrape of this server shows; `process_…` where the system has /proc."""

    def __init__(self, engine: Engine, http: HttpTally) -> None:
        self._engine = engine
        self._collector = Collector(engine, http)
        self._pid: int | None = None
        self._processes = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._processes)
        ProcessCollector(
            namespace=f"{PREFIX}engine", pid=lambda: self._pid or NO_PROCESS, registry=self._processes
        )

    def snapshot(self) -> Snapshot:
        """The figures as they are now; called in the event loop's thread."""
        self._pid = self._engine.insight.stats().pid
        return Snapshot(self._collector.collect(), self._processes)
