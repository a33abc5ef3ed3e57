"""What choices cost: recording steps, the same tokens in any company, other formats of weights and cache."""

from dataclasses import replace

from benchmarks.on_gpu.decode import Figures, decode_rate
from benchmarks.on_gpu.place import Place
from benchmarks.on_gpu.rig import Dials, Rig


def recording(place: Place) -> Figures:
    """Seconds that recording every bucket takes, and what it is worth to a single sequence."""
    rows = place.size(256, 3)
    full = Rig.make(place, Dials(max_running=rows))
    figures: Figures = {
        "num_recorded": full.placement.runner.graphs.num_recorded,
        "setup_s": full.setup_s,
        "recorded_mib": full.placement.plan.recorded / (1 << 20),
    }
    del full  # it has nearly all memory
    eager_s = Rig.make(place, Dials(max_running=rows, is_eager=True)).setup_s
    figures |= {"setup_eager_s": eager_s, "recording_s": figures["setup_s"] - eager_s}
    length = place.size(1000, 48)
    rates = {
        name: decode_rate(place, 1, length, dials)["tokens_per_s"]
        for name, dials in (
            ("recorded", Dials()),
            ("recorded_one_in_flight", Dials(steps_in_flight=1)),
            ("eager", Dials(is_eager=True)),
            ("eager_one_in_flight", Dials(is_eager=True, steps_in_flight=1)),
        )
    }
    return figures | {f"tokens_per_s_{name}": rate for name, rate in rates.items()}


def deterministic(place: Place) -> Figures:
    """The rate with --deterministic, and its share of the rate without; on the host the reference stands for both."""
    figures: Figures = {}
    for rows in (1, place.size(32, 4)):
        plain, own = (
            decode_rate(place, rows, place.size(1000, 48), Dials(is_deterministic=is_deterministic))
            for is_deterministic in (False, True)
        )
        figures[f"tokens_per_s_{rows}"] = own["tokens_per_s"]
        figures[f"share_of_plain_{rows}"] = own["tokens_per_s"] / plain["tokens_per_s"]
    return figures


def fp8_cache(place: Place) -> Figures:
    """32 sequences with a cache of 8-bit floating numbers."""
    dials = replace(Dials(), kv_dtype="fp8")
    return decode_rate(place, place.size(32, 4), place.size(1000, 48), dials)
