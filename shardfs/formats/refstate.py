"""All refs of an object store at one moment: what a numbered, write-once object of it holds.

Spec: docs/design/format/refstate.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from shardfs.errors import MalformedError
from shardfs.formats import ref as ref_format
from shardfs.formats.ids import CommitId
from shardfs.formats.ref import BRANCHES

MAX_NUMBER: Final = 2**53 - 1  # what every reader of JSON can hold
FIRST_ID: Final = "0" * 32

_ID = re.compile(r"[0-9a-f]{32}")
_NUMBER_DIGITS: Final = 16
_NAME = re.compile(r"[0-9]{16}")


@dataclass(frozen=True, slots=True)
class RefState:
    """One state.

    Attributes:
        number: one more than that of the state before.
        id: 32 random hexadecimal digits, so that no two writers write the same state; zeros in state 0.
        previous: the id of the state before; None in state 0.
        head: full name of the branch that a clone checks out, if there is one.
        refs: commits by full name, below refs/heads/ and refs/tags/.
    """

    number: int
    id: str
    previous: str | None
    head: str | None = None
    refs: Mapping[str, CommitId] = field(default_factory=dict)

    def moved(self, name: str, commit: CommitId | None, id_: str) -> RefState:
        """The next state, in which `name` is at `commit` (None: is gone).

        A branch becomes HEAD when HEAD names none that exists.
        """
        refs = {**self.refs}
        refs.pop(name, None)
        head = self.head
        if commit is not None:
            refs[name] = commit
            if name.startswith(BRANCHES) and head not in self.refs:
                head = name
        return RefState(self.number + 1, id_, self.id, head, refs)

    def to_bytes(self) -> bytes:
        """The content of the object; also a listing `info/refs`."""
        value = {
            "version": 1,
            "number": self.number,
            "id": self.id,
            "previous": self.previous,
            "head": self.head,
            "refs": {name: commit.hex() for name, commit in sorted(self.refs.items())},
        }
        return json.dumps(value, indent=0).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> RefState:
        """The state in an object.

        Raises:
            MalformedError: not a state, bad names or ids. UnsupportedVersionError: a state of another version.
        """
        head, refs = ref_format.refs_from_bytes(data)
        value = json.loads(data)
        number, id_, previous = (value.get(key) for key in ("number", "id", "previous"))
        if type(number) is not int or not 0 <= number <= MAX_NUMBER:
            msg = "state of refs: number is out of limits"
            raise MalformedError(msg)
        if not _is_id(id_) or not (_is_id(previous) if number else previous is None):
            msg = "state of refs: id or previous is not 32 hexadecimal digits"
            raise MalformedError(msg)
        return cls(number, id_, previous, head, refs)


def state_name(number: int) -> str:
    """The name of the object of a state; names sort as numbers do."""
    return f"{number:0{_NUMBER_DIGITS}}"


def state_number(name: str) -> int | None:
    """The number of the state that an object of this name is; None when it is something else."""
    return int(name) if _NAME.fullmatch(name) and int(name) <= MAX_NUMBER else None


def _is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None
