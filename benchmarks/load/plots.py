"""Pictures of a run: how its times are distributed. Needs matplotlib, of the extra `bench`."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from benchmarks.load.drive import Run
from benchmarks.load.summary import first_s, gaps_s


def plot(run: Run, path: Path) -> None:
    """Draw the shares of requests and gaps that took at most so long, into `path`."""
    good = [outcome for outcome in run.outcomes if outcome.is_ok]
    samples = {
        "time to first text": [value for one in good if (value := first_s(one)) is not None],
        "gap between chunks": [gap for one in good for gap in gaps_s(one)],
        "whole answer": [one.ended_s - one.due_s for one in good],
    }
    figure, axes = plt.subplots(1, len(samples), figsize=(12, 3.5), layout="constrained")
    for axis, (title, values_s) in zip(axes, samples.items(), strict=True):
        axis.ecdf([1e3 * value for value in values_s]) if values_s else axis.text(0.4, 0.5, "none")
        axis.set(title=title, xlabel="ms", ylabel="share")
    figure.savefig(path)
    plt.close(figure)
