from dataclasses import fields

from engine import PoolGauges, SequenceView
from server.schemas.stats import PoolReport, SequenceReport


def test_every_gauge_of_the_pool_is_reported():
    assert {field.name for field in fields(PoolGauges)} | {"num_held"} == set(PoolReport.model_fields)


def test_everything_of_a_sequence_is_reported():
    named = {field.name for field in fields(SequenceView)}

    assert named <= set(SequenceReport.model_fields)
