"""Bytes to values and back. Pure: no files, clock, network or database. Specified in docs/design/format/."""
