from server.tools.pieces import CallArguments, CallBegun, Pieces, Said, Thought, joined


def test_neighbours_of_one_kind_are_joined():
    pieces = [
        Said("a"),
        Said("b"),
        Thought("c"),
        CallBegun(0, "f"),
        CallArguments(0, "{"),
        CallArguments(0, "}"),
    ]

    assert joined(pieces) == [Said("ab"), Thought("c"), CallBegun(0, "f"), CallArguments(0, "{}")]


def test_arguments_of_two_calls_stay_apart():
    pieces = [CallArguments(0, "{}"), CallArguments(1, "{}")]

    assert joined(pieces) == pieces


def test_white_space_waits_for_what_follows_it():
    pieces = Pieces()
    pieces.say("a ")

    assert pieces.take() == [Said("a")]
    pieces.say("b")
    assert pieces.take() == [Said(" b")]


def test_white_space_beside_a_call_is_dropped():
    pieces = Pieces()
    pieces.say("a\n")
    pieces.begin_call("f")
    pieces.say("\n")
    pieces.end()

    assert pieces.take() == [Said("a"), CallBegun(0, "f")]


def test_white_space_at_the_end_of_text_is_text():
    pieces = Pieces()
    pieces.say(" \n")
    pieces.end()

    assert pieces.take() == [Said(" \n")]
