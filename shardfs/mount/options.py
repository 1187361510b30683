"""How to mount."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Engine = Literal["auto", "kernel", "libfuse"]
AUTO: Engine = "kernel"  # what "auto" means


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What an engine tells the kernel.

    Attributes:
        fsname: the source that /proc/mounts shows; everybody can read it.
        allow_other: other users may look, too.
        read_only: the kernel refuses every write.
        safe: without any ability of the kernel that it does not have to have.
        passthrough: the kernel reads plain files itself, where it can.
        stacked: plain files lie on overlayfs; then no overlayfs can lie on the mount.
    """

    fsname: str
    allow_other: bool = False
    read_only: bool = False
    safe: bool = False
    passthrough: bool = True
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What a user can choose.

    Attributes:
        branch: short name of the branch to show; None for the current one.
        read_only: without staging.
        allow_other: other users may look, too.
        nonempty: the mount point may have content, which the mount hides.
        engine: what speaks to the kernel.
        safe: without any ability of the kernel that it does not have to have: slower, for kernels that have trouble.
        passthrough: the kernel reads files of which there is a plain copy itself, where it can.
    """

    branch: str | None = None
    read_only: bool = False
    allow_other: bool = False
    nonempty: bool = False
    engine: Engine = "auto"
    safe: bool = False
    passthrough: bool = True
