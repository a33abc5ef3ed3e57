"""Fixtures that several folders of tests share."""

from pathlib import Path

import pytest

from engine.source import fetch_demo_model
from server.settings import default_cache_dir


@pytest.fixture(scope="session")
def demo_model_path() -> Path:
    """The demo model's GGUF file, in the user's own cache folder: fetched once, then at hand."""
    return fetch_demo_model(default_cache_dir())
