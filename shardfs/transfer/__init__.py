"""Bytes between stores: the lazy read path, and what fetch, push and clone move."""
