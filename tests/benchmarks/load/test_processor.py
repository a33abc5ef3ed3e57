"""Our own work is not a stranger's, and a stranger's is."""

import subprocess
import sys
import time

from benchmarks.load.processor import ProcessorTime

SPIN = "import time\nwhile time.process_time() < 0.4: pass\nprint('done', flush=True)\ninput()"


def spinning():
    return subprocess.Popen(
        [sys.executable, "-c", SPIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_what_a_watched_process_uses_is_ours():
    with spinning() as server:
        before = ProcessorTime.now(server.pid)
        server.stdout.readline()
        after = ProcessorTime.now(server.pid)
        server.communicate("\n")

    assert after.ours_s - before.ours_s > 0.3


def test_what_another_process_uses_is_a_strangers():
    with spinning() as stranger, spinning() as server:
        before = ProcessorTime.now(server.pid)
        stranger.stdout.readline()
        server.stdout.readline()
        after = ProcessorTime.now(server.pid)
        stranger.communicate("\n")
        server.communicate("\n")

    assert after.strangers_s(before) > 0.3


def test_what_this_process_uses_is_ours():
    with spinning() as server:
        server.stdout.readline()
        before = ProcessorTime.now(server.pid)
        until_s = time.process_time() + 0.2
        while time.process_time() < until_s:
            pass
        after = ProcessorTime.now(server.pid)
        server.communicate("\n")

    assert after.ours_s - before.ours_s > 0.15


def test_less_than_nothing_is_nothing():
    early = ProcessorTime(everybody_s=10.0, ours_s=1.0, stolen_s=0.0)
    late = ProcessorTime(everybody_s=11.0, ours_s=2.1, stolen_s=0.0)

    assert late.strangers_s(early) == 0.0


def test_theft_is_a_strangers():
    early = ProcessorTime(everybody_s=10.0, ours_s=1.0, stolen_s=1.0)
    late = ProcessorTime(everybody_s=11.0, ours_s=2.0, stolen_s=1.5)

    assert late.strangers_s(early) == 0.5
