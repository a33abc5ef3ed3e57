"""As many sequences as there is place for, at all stages of their lives: the rate that is kept up.

The first ones are cut short by different amounts, so that from then on one ends, and another begins, in as
many steps as in a long run. What is measured begins when all of them have been computed once.
"""

import itertools

from benchmarks.on_gpu.decode import Figures, costs_of
from benchmarks.on_gpu.place import Place
from benchmarks.on_gpu.rig import Dials, Rig, StepTime

SECONDS = 20.0


def saturated(place: Place, num_inputs: int, num_outputs: int, **dials: object) -> Figures:
    """Output tokens a second, with new prompts coming in as others end."""
    rig = Rig.make(place, Dials(max_running=place.size(256, 6), **dials))
    layout = rig.placement.layout
    fitting = min(rig.dials.max_running, layout.num_sequences_at(num_inputs + num_outputs))
    for place_in_line in range(fitting):
        rig.add(num_inputs, 1 + num_outputs * (place_in_line + 1) // (fitting + 1))
    for number in itertools.count(fitting):
        if number >= place.size(6 * fitting, 3 * fitting):
            break
        rig.add(num_inputs, num_outputs)
    begun = [False]

    def is_done() -> bool:
        if not begun[0]:
            begun[0] = all(rig.outputs[number] for number in range(fitting))
            if begun[0]:
                rig.steps.clear()
            return False
        return len(rig.steps) > 2 and rig.steps[-1].at_s - rig.steps[0].at_s > place.size(20, 1)

    rig.run(until=is_done)
    steps = list(rig.steps)
    rig.abandon()
    limit = costs_of(place, rig.dials).saturated_rate(fitting, num_inputs, num_outputs)
    rate = rig.rate(steps)
    return {
        "tokens_per_s": rate,
        "limit": limit,
        "fraction": rate / limit,
        "num_running": fitting,
        "num_preemptions": rig.scheduler.load.num_preemptions,
        "share_of_mixed_steps": share_mixed(steps),
        "seconds": steps[-1].at_s - steps[0].at_s,
    }


def share_mixed(steps: list[StepTime]) -> float:
    """Of the steps, those that computed some prompt beside what decodes."""
    return sum(step.num_tokens > step.num_rows for step in steps) / len(steps)


def long_answers(place: Place) -> Figures:
    """1,000 tokens in, 1,000 out."""
    return saturated(place, place.size(1000, 24), place.size(1000, 24))


def short_answers(place: Place) -> Figures:
    """128 tokens in, 128 out."""
    return saturated(place, place.size(128, 8), place.size(128, 8))


def long_prompts(place: Place) -> Figures:
    """8,192 tokens in, 512 out: the window bites."""
    return saturated(place, place.size(8192, 96), place.size(512, 12), max_step_tokens=place.size(2048, 64))
