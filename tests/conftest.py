"""Fixtures that several folders of tests share, and one thread for the arithmetic of each process.

As many test processes run as there are cores; threads of theirs beyond that only wait for each other.
Tests of threads say how many they want.
"""

import gc
import os
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScheduling

from engine.source import fetch_demo_model
from server.settings import default_cache_dir

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything loads torch; children inherit it

settings.register_profile("any-machine", deadline=None)  # an example may take as long as the machine makes it
settings.load_profile("any-machine")

OPENAPI_TESTS = Path(__file__).parent / "scenarios" / "test_openapi_document.py"


def pytest_configure(config: pytest.Config) -> None:
    """Load the plugin of the tests made from our document where they may run: it takes a second."""
    if not _leaves_out_clients(config):
        config.pluginmanager.import_plugin("schemathesis.pytest.plugin")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Only to collect those takes seconds, so they are not where none would run."""
    return True if collection_path == OPENAPI_TESTS and _leaves_out_clients(config) else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScheduling | None:
    """Tests made from our document have one name for all, of which whole files would run one test alone."""
    return None if _leaves_out_clients(config) else LoadScheduling(config, log)


def pytest_collection_finish() -> None:
    """What is loaded by now stays to the end; the collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


def _leaves_out_clients(config: pytest.Config) -> bool:
    return "not clients" in config.option.markexpr


@pytest.fixture(scope="session")
def demo_model_path() -> Path:
    """The demo model's GGUF file, in the user's own cache folder: fetched once, then at hand."""
    return fetch_demo_model(default_cache_dir())
