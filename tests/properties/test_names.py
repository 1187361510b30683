"""No ref name that passes can leave its directory, its URL, its line or its word of a revision."""

from __future__ import annotations

import os.path
from urllib.parse import quote, urljoin, urlsplit

from hypothesis import example, given
from hypothesis import strategies as st

from shardfs.formats import ref
from shardfs.formats.ids import CommitId
from shardfs.formats.ref import BRANCHES, REMOTES, TAGS, is_ref_name
from shardfs.history.objects import Objects
from shardfs.history.revisions import resolve
from tests.memory_objects import Memory

PIECES = [
    "..",
    ".",
    "/",
    "//",
    "a",
    "~",
    "^",
    "@{",
    "\\",
    "\0",
    "\n",
    "%2e%2e",
    "%2f",
    "é",
    " ",
    ".lock",
    "-",
    ":",
    "?",
    "#",
]
SHORT = st.text(max_size=30) | st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
PREFIXES = st.sampled_from([BRANCHES, TAGS, REMOTES, "refs/", "", "/", "../", "refs/heads"])
STORE = "/srv/store"
MEMORY = Memory()
COMMIT = MEMORY.put_commit()


class OneName:
    """A repository with one ref."""

    def __init__(self, name: str) -> None:
        self.name = name

    def head_commit(self) -> CommitId | None:
        return None

    def ref(self, name: str) -> CommitId | None:
        return COMMIT if name == self.name else None

    def commits_with_prefix(self, digits: str) -> list[CommitId]:
        return []


@given(PREFIXES, SHORT)
@example(BRANCHES, "a/../../../config.toml")
@example(BRANCHES, "%2e%2e/%2e%2e")
def test_names_that_pass_are_safe_everywhere(prefix: str, short: str) -> None:
    name = prefix + short
    if not is_ref_name(name):
        return
    path = f"{STORE}/{name}"
    assert os.path.normpath(path) == path
    assert path.startswith(f"{STORE}/refs/")
    assert all(0 < len(part.encode()) <= 254 for part in name.split("/"))  # a log has one byte more
    url = urljoin("http://host/repo/", quote(name))
    assert urlsplit(url).path == f"/repo/{quote(name)}"
    assert len(name.splitlines()) == len(name.split()) == 1
    if prefix in (BRANCHES, TAGS) and short not in ("HEAD", "@"):
        assert resolve(short + "~0", OneName(name), Objects(MEMORY)) == COMMIT
        assert ref.check_ref_name(name) == name
