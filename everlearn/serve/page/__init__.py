"""The live page at "/": what a server is doing, at a glance, and the few things that one can do about it."""

from everlearn.serve.page.routes import page_routes

__all__ = ["page_routes"]
