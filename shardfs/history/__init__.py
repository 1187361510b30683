"""Commits, trees, revisions and file contents, read through any source of verified objects. No network."""
