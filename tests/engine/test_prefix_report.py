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
    counted = {name.removeprefix("num_") for name in PrefixCounters.__dataclass_fields__}

    assert {reason.value for reason in MissReason} - {"off"} <= counted
    assert PrefixCounters() == NO_LOOKUPS
