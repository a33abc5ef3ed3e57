from server.contract.constraint import CONSTRAINTS
from server.contract.fields import Status
from server.schemas.constraint import ConstrainedBody, StructuredOutputs


def named(prefix):
    return {
        field.name.removeprefix(prefix)
        for field in CONSTRAINTS
        if field.name.startswith(prefix)
        and "." not in field.name.removeprefix(prefix)
        and field.status is not Status.REFUSED
    }


def test_a_body_has_exactly_the_fields_that_are_not_refused():
    assert set(ConstrainedBody.model_fields) == named("")


def test_so_has_the_object_of_all_kinds():
    aliases = {field.alias or name for name, field in StructuredOutputs.model_fields.items()}

    assert aliases == named("structured_outputs.")
