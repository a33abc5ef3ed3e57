import os
import sys
from dataclasses import replace

import pytest
from prometheus_client import generate_latest

from server.metrics.http import HttpTally
from server.metrics.registry import Registry
from tests.support.fake_engine import FakeEngine

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")


class EngineWithProcess(FakeEngine):
    def __init__(self, pid: int | None) -> None:
        super().__init__()
        self.pid = pid

    def stats(self):
        return replace(super().stats(), pid=self.pid)


def text_of(engine: FakeEngine) -> str:
    return generate_latest(Registry(engine, HttpTally()).snapshot()).decode()


def test_two_servers_in_one_process_do_not_share_a_registry():
    assert text_of(FakeEngine()).count("# TYPE ringserve_engine_generation gauge") == 1
    assert text_of(FakeEngine()).count("# TYPE ringserve_engine_generation gauge") == 1


@linux_only
def test_both_processes_are_told_by_the_kernel():
    text = text_of(EngineWithProcess(os.getppid()))

    assert "\nprocess_resident_memory_bytes " in text
    assert "\nringserve_engine_process_resident_memory_bytes " in text


@linux_only
def test_without_an_engine_process_its_memory_is_not_told():
    text = text_of(EngineWithProcess(None))

    assert "\nprocess_resident_memory_bytes " in text
    assert "ringserve_engine_process_" not in text


def test_a_snapshot_tells_one_moment_whatever_happens_while_it_is_encoded():
    engine, http = FakeEngine(), HttpTally()
    snapshot = Registry(engine, http).snapshot()
    http.num_under_way = 7

    assert "\nringserve_http_requests_under_way 0.0" in generate_latest(snapshot).decode()
