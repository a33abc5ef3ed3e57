import pytest

from server.keys import Keyring, Scope, digest_of, read_keys

INFERENCE, METRICS, ADMIN = frozenset({Scope.INFERENCE}), frozenset({Scope.METRICS}), frozenset({Scope.ADMIN})


def written(tmp_path, text: str):
    file = tmp_path / "keys"
    file.write_text(text, "utf-8")
    return read_keys(file)


@pytest.mark.parametrize(
    ("line", "key", "scopes"),
    [
        ("plain", "plain", INFERENCE),
        ("  spaced  ", "spaced", INFERENCE),
        ("metrics:m", "m", METRICS),
        ("admin: a", "a", ADMIN),
        ("inference,metrics:b", "b", INFERENCE | METRICS),
        ("inference:sk:with:colons", "sk:with:colons", INFERENCE),
        ("sk-1:with:colons", "sk-1:with:colons", INFERENCE),
        ("metrics:sk:x", "sk:x", METRICS),
    ],
)
def test_a_line_is_a_key_with_its_scopes(tmp_path, line, key, scopes):
    assert written(tmp_path, f"# keys\n\n{line}\n") == {digest_of(key): scopes}


def test_a_key_named_twice_has_both_scopes(tmp_path):
    assert written(tmp_path, "metrics:k\nk\n") == {digest_of("k"): INFERENCE | METRICS}


def test_a_scope_without_key_is_refused_by_its_line(tmp_path):
    with pytest.raises(ValueError, match="line 2"):
        written(tmp_path, "k\nadmin:\n")


@pytest.mark.parametrize(
    "line", ["metric:k", "inference,nonsense:k", "nonsense,inference:k", "Admin:k", "admin,:k"]
)
def test_what_is_no_scope_is_refused_by_its_line_and_not_shown(tmp_path, line):
    with pytest.raises(ValueError, match=r"line 2.*inference, metrics, admin") as caught:
        written(tmp_path, f"k\n{line}\n")

    assert not {"metric:", "nonsense", "Admin"} & set(str(caught.value).split())


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        read_keys(tmp_path / "nowhere")


def test_a_ring_finds_its_keys_and_no_others():
    ring = Keyring({digest_of("k"): METRICS})

    assert ring.find(b"k").name == f"key-{digest_of('k')[:8]}"
    assert ring.find(b"K") is None
    assert ring.find(digest_of("k").encode()) is None


def test_an_empty_ring_is_none():
    assert not Keyring({})
    assert Keyring({digest_of("k"): INFERENCE})


@pytest.mark.parametrize(
    ("scopes", "opened"), [(INFERENCE, {Scope.INFERENCE}), (METRICS, {Scope.METRICS}), (ADMIN, set(Scope))]
)
def test_a_scope_opens_what_it_says_and_administration_everything(scopes, opened):
    key = Keyring({digest_of("k"): scopes}).find(b"k")

    assert {scope for scope in Scope if key.opens(scope)} == opened
