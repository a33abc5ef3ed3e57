import pickle

from engine.prefix_report import NO_LOOKUPS, MissReason, PrefixCounters, PrefixReport


def test_a_report_survives_pickling_and_compares_equal():
    report = PrefixReport(
        num_matched_tokens=4,
        block_size=4,
        miss_reason=MissReason.EVICTED,
        first_missing_block=1,
        evicted_s_ago=2.0,
    )

    assert pickle.loads(pickle.dumps(report)) == report


def test_every_reason_of_a_lookup_has_its_sum():
    counted = {name.removeprefix("num_") for name in PrefixCounters._fields}

    assert {reason.value for reason in MissReason} - {"off"} <= counted
    assert PrefixCounters() == NO_LOOKUPS


def test_counters_of_two_processes_add_up():
    both = PrefixCounters(num_lookups=2, num_evicted=1) + PrefixCounters(num_lookups=3, num_complete=3)

    assert both == PrefixCounters(num_lookups=5, num_evicted=1, num_complete=3)


def test_lookups_are_told_by_result():
    counters = PrefixCounters(num_complete=3, num_too_short=2)

    assert counters.num_by_result["complete"] == 3
    assert counters.num_by_result["too_short"] == 2
    assert set(counters.num_by_result) == {"complete", *MissReason} - {"off"}
