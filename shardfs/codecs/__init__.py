"""Reversible encodings of chunks. Pure. Each codec has a code that packs record and a page in docs/design/format/."""
