"""The program `mount.shardfs`, as mount(8) calls the helper of a file system type.

mount.shardfs SOURCE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-t TYPE] [-o WORDS]
"""

from __future__ import annotations

import sys
from typing import NoReturn

_ALONE = "sfnv"  # flags of mount(8); only f, pretend, has a meaning here
_WITH_VALUE = "oNt"


def main() -> NoReturn:
    """Mount, and exit with 0 or the status of the command `mount`."""
    from shardfs_cli.main import main as shardfs

    arguments = translated(sys.argv[1:])
    if arguments is None:
        sys.exit(0)
    sys.argv[1:] = arguments
    shardfs()


def translated(arguments: list[str]) -> list[str] | None:
    """The arguments of mount(8) as those of `shardfs`; None when only to pretend."""
    places, words, flags = [], [], ""
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            places.append(argument)
            continue
        for position, letter in enumerate(argument[1:], 2):
            if letter in _WITH_VALUE:
                value = argument[position:] or next(rest, "")
                words += [value] if letter == "o" else []
                break
            flags += letter
    if "f" in flags and len(places) == 2:
        return None
    if len(places) != 2 or flags.strip(_ALONE):
        return ["mount", "--help"]
    source, mountpoint = places
    return ["mount", "-q", "--source", source, *(["-o", ",".join(words)] if words else []), "--", mountpoint]
