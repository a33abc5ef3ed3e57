import json

import pytest

from server.tools.formats import HERMES, JSON, LLAMA3, MISTRAL, MISTRAL_NAMED, choose_format
from tests.support.call_texts import CALLS, FORMATS, called, parsed

TEMPLATES = {
    "qwen": ("{% if tools %}{{ tools | tojson }}Answer in <tool_call></tool_call>{% endif %}", HERMES),
    "mistral 3": ("{{ '[AVAILABLE_TOOLS]' }}{{ tools }}{{ '[TOOL_CALLS]' }}", MISTRAL),
    "mistral 11": ("{{ tools }}{{ '[TOOL_CALLS]' }}{{ name }}{{ '[ARGS]' }}", MISTRAL_NAMED),
    "llama": ("{% if tools %}{{ '<|python_tag|>' }}{% endif %}", LLAMA3),
    "another that reads tools": ("{{ tools }}", JSON),
    "one that knows no tools": ("{{ messages }}", JSON),
    "none at all": ("", JSON),
}


@pytest.mark.parametrize(("template", "found"), TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_tells_the_format(template, found):
    assert choose_format("auto", template) is found


@pytest.mark.parametrize("name", ["hermes", "mistral", "llama3", "json"])
def test_a_setting_goes_before_the_template(name):
    chosen = choose_format(name, TEMPLATES["llama"][0])

    assert chosen is not None
    assert chosen.name == name


def test_none_is_no_format():
    assert choose_format("none", TEMPLATES["qwen"][0]) is None


@pytest.mark.parametrize("tool_format", FORMATS.values(), ids=FORMATS)
def test_what_a_format_writes_it_reads(tool_format):
    for calls in (CALLS, CALLS[:1]):
        assert called(parsed(tool_format, [tool_format.spell(calls)])) == list(calls)


def test_hermes_is_written_as_the_models_write_it():
    assert HERMES.spell([("f", "{}")]) == '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'


def test_a_list_of_mistrals_is_json():
    spelled = MISTRAL.spell(CALLS)

    assert [call["name"] for call in json.loads(spelled.removeprefix("[TOOL_CALLS]"))] == [
        "get_weather",
        "add",
    ]
