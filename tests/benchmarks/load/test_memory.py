"""Memory is that of a whole process tree, and what has ended has none."""

import os
import subprocess
import sys

from benchmarks.load.memory import MemoryWatch, process_tree, pss_bytes, tree_pss_bytes

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "print('up', flush=True); input()"], stdin=sys.stdin)
child.wait()
"""


def test_a_tree_holds_children_and_counts_their_memory():
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        parent.stdout.readline()
        tree = process_tree(parent.pid)
        together = tree_pss_bytes(parent.pid)
        alone = pss_bytes(parent.pid)
        parent.communicate("\n")

    assert tree[0] == parent.pid
    assert len(tree) == 2
    assert together > alone > 0


def test_what_has_ended_has_no_memory():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    assert process_tree(ended.pid) == []
    assert tree_pss_bytes(ended.pid) == 0


def test_the_peak_outlives_what_was_freed():
    with MemoryWatch.over(os.getpid()) as watch:
        before = tree_pss_bytes(os.getpid())

    assert watch.peak_bytes > before / 2
