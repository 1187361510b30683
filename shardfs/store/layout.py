"""Where things are in a store directory. Spec: docs/design/format/store.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shardfs.formats.ids import pack_path


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below one store directory (`.shardfs`, a bare repository, a folder on a web server)."""

    root: Path

    @property
    def config(self) -> Path:
        """Settings; its presence marks a store."""
        return self.root / "config.toml"

    @property
    def head(self) -> Path:
        """The current branch."""
        return self.root / "HEAD"

    @property
    def packs(self) -> Path:
        """Directory of pack files."""
        return self.root / "packs"

    @property
    def index(self) -> Path:
        """The SQLite index."""
        return self.root / "index.sqlite"

    @property
    def lock(self) -> Path:
        """The writer lock."""
        return self.root / "lock"

    @property
    def tmp(self) -> Path:
        """Directory of unfinished writes."""
        return self.root / "tmp"

    @property
    def info_refs(self) -> Path:
        """Listing of refs for readers that cannot list directories."""
        return self.root / "info" / "refs"

    @property
    def info_packs(self) -> Path:
        """Listing of packs for readers that cannot list directories."""
        return self.root / "info" / "packs"

    @property
    def orders(self) -> Path:
        """Directory of records of the order in which files were read."""
        return self.root / "orders"

    @property
    def speeds(self) -> Path:
        """How fast the last transfers with remotes were."""
        return self.root / "speeds.json"

    def pack(self, pack_id: bytes) -> Path:
        """The file of a pack."""
        return self.root / pack_path(pack_id)

    def ref(self, name: str) -> Path:
        """The file of a ref; `name` has passed `check_ref_name`."""
        return self.root / name

    def log(self, name: str) -> Path:
        """The reflog of a ref.

        No component of a ref name ends with "~": the log of a deleted `a` is never in the way of that of `a/b`.
        """
        return self.root / "logs" / f"{name}~"

    def staging(self, branch: str) -> Path:
        """The staging directory of a branch (short name); URL unquoting of its name gives the branch.

        Only "%" and "/" are escaped: a name of 189 bytes with every byte escaped would not fit into a directory.
        """
        return self.root / "staging" / branch.replace("%", "%25").replace("/", "%2F")
