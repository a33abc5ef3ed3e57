import ctypes.util
import shutil
import sysconfig
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.kernels.cpu.library import create_context, library_path, load_library, supported_levels
from tests.support.native import needs_native


def test_the_library_is_built_where_there_is_a_compiler():
    compiler = (sysconfig.get_config_var("CXX") or "c++").split()[0]
    if shutil.which(compiler) is None:
        pytest.skip("no compiler")

    assert library_path() is not None, "pip install -e . builds it in place"


def test_a_library_of_other_sources_is_refused_with_what_it_lacks_and_what_to_do():
    other = Path(ctypes.util.find_library("c"))

    with pytest.raises(ConfigError, match=r"it has no function rs_level_name\. Build .* pip install -e \."):
        load_library(other)


@needs_native
def test_every_machine_has_the_portable_level_first():
    assert supported_levels(load_library(library_path()))[0] == "portable"


@needs_native
@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_a_context_ends_its_threads(num_threads):
    library = load_library(library_path())

    context = create_context(library, num_threads, "portable")
    library.rs_destroy(context)

    assert context
