"""The registry of one server: its own figures, and those of its two processes as the kernel tells them."""

from prometheus_client import CollectorRegistry, ProcessCollector

from engine import Engine
from server.metrics.collector import PREFIX, Collector
from server.metrics.http import HttpTally

NO_PROCESS = "none"  # there is no such folder in /proc, so nothing is told


def new_registry(engine: Engine, http: HttpTally) -> CollectorRegistry:
    """Everything that a scrape of this server shows; `process_…` where the system has /proc."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(engine, http))
    ProcessCollector(registry=registry)
    ProcessCollector(
        namespace=f"{PREFIX}engine", pid=lambda: engine.insight.stats().pid or NO_PROCESS, registry=registry
    )
    return registry
