import re
import subprocess
import sys
from pathlib import Path

import pytest

import engine


def test_every_public_name_is_found_where_the_type_checker_is_told():
    source = Path(engine.__file__).read_text()
    told = {name: home for home, name in re.findall(r"    from (\S+) import \w+ as (\w+)", source)}

    assert told == engine._HOMES


@pytest.mark.parametrize("name", engine.__all__)
def test_a_public_name_can_be_imported(name: str):
    assert getattr(engine, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'engine' has no attribute 'Scheduler'"):
        engine.Scheduler  # noqa: B018  looking it up is the point


def test_all_names_are_listed():
    assert set(engine.__all__) <= set(dir(engine))


def test_importing_the_package_imports_none_of_its_modules():
    code = "import sys, engine; print([name for name in sys.modules if name.startswith('engine.')])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
