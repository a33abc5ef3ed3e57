"""The fields that say what an answer must look like; of one body at most one may say something."""

from server.contract.fields import hint, refused, works

PEERS = "peers"
"""Names that other open inference servers use; no field of OpenAI's."""

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


CONSTRAINTS = (
    works(
        "response_format",
        {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}},
        "text, json_object or json_schema: the answer is then JSON of that kind. With strict, keywords that "
        "cannot be enforced are refused; without, they are passed over.",
    ),
    works(
        "guided_json",
        SCHEMA,
        "A JSON schema, as an object or as text, that the answer follows.",
        source=PEERS,
    ),
    works("guided_regex", "[a-z]+", "A regular expression that the whole answer matches.", source=PEERS),
    works("guided_choice", ["yes", "no"], "Texts of which the answer is one.", source=PEERS),
    works("guided_grammar", 'start: "a"+', "A Lark or GBNF grammar that the answer follows.", source=PEERS),
    works(
        "structured_outputs",
        {"choice": ["yes", "no"]},
        "The same under one name: an object with one of the fields below.",
        source=PEERS,
    ),
    works("structured_outputs.json", {"json": SCHEMA}, "As guided_json.", source=PEERS),
    works("structured_outputs.regex", {"regex": "a+"}, "As guided_regex.", source=PEERS),
    works("structured_outputs.choice", {"choice": ["a", "b"]}, "As guided_choice.", source=PEERS),
    works("structured_outputs.grammar", {"grammar": 'start: "a"+'}, "As guided_grammar.", source=PEERS),
    works("structured_outputs.json_object", {"json_object": True}, "Any JSON object.", source=PEERS),
    works(
        "structured_outputs.disable_any_whitespace",
        {"json_object": True, "disable_any_whitespace": True},
        "No whitespace between the parts of JSON.",
        source=PEERS,
    ),
    refused(
        "structured_outputs.structural_tag",
        {"json_object": True, "structural_tag": "{}"},
        "Write the text around the tags as a grammar.",
        source=PEERS,
    ),
    refused(
        "structured_outputs.whitespace_pattern",
        {"json_object": True, "whitespace_pattern": " "},
        "Whitespace is bounded already, or none with disable_any_whitespace.",
        source=PEERS,
    ),
    refused(
        "structured_outputs.disable_additional_properties",
        {"json_object": True, "disable_additional_properties": True},
        "Say additionalProperties: false in the schema.",
        neutral=(False,),
        source=PEERS,
    ),
    refused(
        "guided_whitespace_pattern",
        " ",
        "Whitespace is bounded already; see structured_outputs.disable_any_whitespace.",
        source=PEERS,
    ),
    hint(
        "guided_decoding_backend",
        "auto",
        "Accepted, without effect: there is one way to follow a grammar.",
        source=PEERS,
    ),
)
