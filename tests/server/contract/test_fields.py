from server.contract.fields import Status, hint, notes, refused, works


def test_a_refused_field_always_passes_as_null():
    field = refused("x", 1, "No.", neutral=(0,))

    assert field.is_neutral(None)
    assert field.is_neutral(0)
    assert not field.is_neutral(1)


def test_false_is_no_zero():
    assert not refused("x", 1, "No.", neutral=(0,)).is_neutral(False)


def test_a_field_knows_what_its_example_needs():
    assert works("x", 1, "X.", y=2).companions == (("y", 2),)


def test_a_hint_says_that_it_has_no_effect():
    assert (hint("x", 1).status, hint("x", 1).note) == (Status.HINT, "Accepted, without effect.")


def test_notes_are_by_name():
    assert notes([works("x", 1, "X."), hint("y", 1, "Y.")]) == {"x": "X.", "y": "Y."}
