"""Fixtures that several folders of tests share."""

import os
from pathlib import Path

import pytest

from engine.source import default_cache_dir, fetch_demo_model


@pytest.fixture(scope="session")
def demo_model_path() -> Path:
    """The demo model's GGUF file, in the user's own cache folder: fetched once, then at hand."""
    cache_dir = default_cache_dir(os.environ.get("XDG_CACHE_HOME", ""), Path.home())
    return fetch_demo_model(cache_dir)
