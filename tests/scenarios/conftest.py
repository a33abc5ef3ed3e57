"""The live server of the HTTP tests serves stories too."""

from tests.server.conftest import anyio_backend, live

__all__ = ["anyio_backend", "live"]
