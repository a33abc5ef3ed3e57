"""Leaves out, while parts of the tree are not there yet, the checks that need the whole of it."""

import pytest

from tests.architecture.source_tree import ROOT

LANDMARKS = (
    "README.md",
    "server/settings.py",
    "server/app.py",
    "engine/engine.py",
    "engine/models/decoder.py",
)
MISSING = [path for path in LANDMARKS if not (ROOT / path).exists()]
NEED_THE_WHOLE = (
    "test_the_whole_tree_is_read",
    "test_the_server_uses_the_engines_public_names_only",
    "test_the_engine_package_loads_nothing_by_itself",
    "test_every_public_name_of_the_engine_resolves",
    "test_the_central_files_name_no_feature[engine/models/decoder.py]",
    "test_every_module_has_its_test_file",
)

collect_ignore = ["test_readme.py"] if MISSING else []


def pytest_collection_modifyitems(items):
    for item in items:
        if MISSING and item.name in NEED_THE_WHOLE:
            item.add_marker(pytest.mark.skip(reason=f"not there yet: {', '.join(MISSING)}"))
