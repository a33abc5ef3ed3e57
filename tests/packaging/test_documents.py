import pytest

from tests.packaging.documents import Page, read_commands

PAGE = Page(
    "page.md",
    """# The ring, explained
See [here](docs/x.md#a-b) and `[not](this)`.

```sh
cd x && ls   # a comment
```

## `slot()` & co
```python
f(1)
```
""",
)


def test_blocks_are_read_with_language_and_line():
    assert [(block.language, block.line, block.text) for block in PAGE.blocks] == [
        ("sh", 5, "cd x && ls   # a comment"),
        ("python", 10, "f(1)"),
    ]


def test_a_block_left_open_is_an_error():
    with pytest.raises(AssertionError, match="not closed"):
        Page("page.md", "```sh\nls\n").blocks  # noqa: B018  reading it is the test


def test_links_in_prose_are_read():
    assert PAGE.links == ("docs/x.md#a-b",)


def test_anchors_are_written_as_github_writes_them():
    assert PAGE.anchors == {"the-ring-explained", "slot--co"}


def test_commands_come_from_shell_blocks_only():
    assert [(one.line, one.words) for one in PAGE.commands()] == [(5, ("cd", "x")), (5, ("ls",))]


def test_a_joined_line_is_one_command_and_the_next_keeps_its_number():
    commands = list(read_commands("curl -N \\\n  -d '{\"a; b\": 1}'\nls | head", first_line=7))

    assert [(one.line, one.words) for one in commands] == [
        (7, ("curl", "-N", "-d", '{"a; b": 1}')),
        (9, ("ls",)),
        (9, ("head",)),
    ]


def test_variables_before_a_command_are_its_own():
    (command,) = read_commands("KEY='a b' N=1 .venv/bin/ringserve serve --port=1")

    assert (command.variables, command.program) == ({"KEY": "a b", "N": "1"}, "ringserve")
    assert command.words[1:] == ("serve", "--port=1")
