import shutil
import sysconfig

import pytest

from engine.kernels.cpu.library import create_context, library_path, load_library, supported_levels
from tests.support.native import needs_native


def test_the_library_is_built_where_there_is_a_compiler():
    compiler = (sysconfig.get_config_var("CXX") or "c++").split()[0]
    if shutil.which(compiler) is None:
        pytest.skip("no compiler")

    assert library_path() is not None, "pip install -e . builds it in place"


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
