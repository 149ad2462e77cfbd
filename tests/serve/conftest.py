"""Fixtures that several tests of the server share."""

from .postgres_server import server

__all__ = ["server"]
