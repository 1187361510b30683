"""`shardfs stats`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from shardfs.errors import UsageError
from shardfs.history.paths import show
from shardfs.history.revisions import short
from shardfs_cli import output, plot
from shardfs_cli.command import READS
from shardfs_cli.command import command as define
from shardfs_cli.context import Context, file_path

if TYPE_CHECKING:
    from shardfs.maintenance.parts import Part
    from shardfs.maintenance.stats import CodecStats, CommitStats, Stats
    from shardfs.repository import Repository

_OF_ONE_VERSION: Final = ("file", "tensor")


@define(
    "stats",
    exits=READS,
    examples=(
        "shardfs stats",
        "shardfs stats v1 --by tensor",
        "shardfs stats --by file --json",
        "shardfs stats --plot stored.svg",
        "shardfs stats --watch ./models",
    ),
)
@click.argument("rev", required=False, metavar="[REV | MOUNTPOINT]")
@click.option(
    "--by",
    type=click.Choice(["commit", "codec", "file", "tensor"]),
    help="Show one table: commits with the bytes that each added; codecs with the chunks that they encode; "
    "files of REV (default: HEAD); tensors of the model files of REV, largest first.",
)
@click.option("--plot", "target", metavar="FILE", help="Write a picture (SVG) of the bytes over the versions to FILE.")
@click.option(
    "--watch", is_flag=True, help="Show what a mount does, a line a second, until Ctrl-C; as JSON an object a line."
)
@click.pass_obj
def command(context: Context, rev: str | None, by: str | None, target: str | None, *, watch: bool) -> None:
    """Show how many bytes the versions have and how many are stored, for all of them or those up to REV.

    With `--by file` and `--by tensor`: for REV alone. A chunk that several files or tensors share counts for each of
    them by the bytes that it has in it. `depth` is how many chunks must be decoded before one, at most.

    With `--watch`: reads and bytes a second that programs asked the mount for, how many of the chunks were in memory,
    bytes a second from remotes, errors, open files, memory and processor time. What the kernel answers from its page
    cache is not seen. Without MOUNTPOINT: the mount around the current directory, or the only one.
    """
    out = context.output
    if watch:
        _watch(out, rev, alone=by is None and target is None)
        return
    if by in _OF_ONE_VERSION and target is not None:
        msg = f"--plot shows versions, --by {by} shows one; leave out one of them"
        raise UsageError(msg)
    with context.repository() as repository:
        if by in _OF_ONE_VERSION:
            _show_parts(out, repository, rev or "HEAD", by)
            return
        found = repository.stats(rev)
        if target is not None:
            _write_plot(target, _title(repository, rev), found)
    if out.json:
        out.document(_json(found))
    else:
        out.lines(_lines(found, by))
    if target is not None:
        out.note(f"wrote {output.name(target)}")


def _watch(out: output.Output, mountpoint: str | None, *, alone: bool) -> None:
    if not alone:
        msg = "--watch shows what a mount does; leave out --by and --plot"
        raise UsageError(msg)
    from shardfs_cli import watch

    watch.watch(out, watch.find(None if mountpoint is None else file_path(mountpoint)))


def _json(found: Stats) -> dict[str, Any]:
    return {
        "logical_bytes": found.logical_bytes,
        "deduplicated_bytes": found.deduplicated_bytes,
        "stored_bytes": found.stored_bytes,
        "commits": found.commits,
        "trees": found.trees,
        "manifests": found.manifests,
        "chunks": found.chunks,
        "remote_chunks": found.remote_chunks,
        "files": found.files,
        "packs": found.packs,
        "codecs": [
            {
                "codec": row.codec,
                "chunks": row.chunks,
                "raw_bytes": row.raw_bytes,
                "stored_bytes": row.stored_bytes,
                "ratio": _ratio(row.raw_bytes, row.stored_bytes),
                "mean_depth": round(row.mean_depth, 3),
                "max_depth": row.max_depth,
            }
            for row in found.codecs
        ],
        "versions": [
            {
                "commit": version.id.hex(),
                "subject": version.subject,
                "files": version.files,
                "logical_bytes": version.logical_bytes,
                "new_bytes": version.new_bytes,
            }
            for version in found.versions
        ],
    }


def _lines(found: Stats, by: str | None) -> list[str]:
    tables = [_commit_table(found.versions)] if by != "codec" else []
    tables += [_codec_table(found.codecs)] if by != "commit" else []
    lines = [line for table in tables for line in (*table, "")]
    counts = ", ".join(
        output.count(number, noun)
        for number, noun in ((found.commits, "commit"), (found.chunks, "chunk"), (found.packs, "pack"))
    )
    elsewhere = f", {found.remote_chunks} of the chunks only at a remote" if found.remote_chunks else ""
    stored = found.stored_bytes if not found.remote_chunks else 0
    sizes = f"{output.size(found.logical_bytes)} in all versions, {output.size(found.deduplicated_bytes)} deduplicated"
    return [
        *lines,
        f"{sizes}, {output.size(found.stored_bytes)} stored{_smaller(found.logical_bytes, stored)}",
        f"{counts}{elsewhere}",
    ]


def _commit_table(versions: tuple[CommitStats, ...]) -> list[str]:
    rows = [("version", "files", "logical", "new", "")]
    rows += [
        (short(v.id), str(v.files), output.size(v.logical_bytes), output.size(v.new_bytes), output.name(v.subject))
        for v in versions
    ]
    return output.table(rows, right=(1, 2, 3))


def _codec_table(codecs: tuple[CodecStats, ...]) -> list[str]:
    rows = [("codec", "chunks", "raw", "stored", "ratio", "mean depth", "depth")]
    rows += [
        (
            row.codec,
            str(row.chunks),
            output.size(row.raw_bytes),
            output.size(row.stored_bytes),
            _ratio_text(row.raw_bytes, row.stored_bytes),
            f"{row.mean_depth:.1f}",
            str(row.max_depth),
        )
        for row in codecs
    ]
    return output.table(rows, right=range(1, 7))


def _show_parts(out: output.Output, repository: Repository, rev: str, by: str | None) -> None:
    id_ = repository.resolve(rev)
    found = repository.parts(id_.hex(), "tensor" if by == "tensor" else "file")
    logical, stored = sum(part.logical_bytes for part in found), sum(part.stored_bytes for part in found)
    if out.json:
        rows = [_part_json(part, of_tensor=by == "tensor") for part in found]
        out.document({"commit": id_.hex(), "logical_bytes": logical, "stored_bytes": stored, f"{by}s": rows})
        return
    heads = ("logical", "stored", "ratio", "chunks", "depth", "codec")
    names = ("file", "tensor", "type", "shape") if by == "tensor" else ("file",)
    lines = [(*names, *heads), *((*_part_names(part)[: len(names)], *_part_cells(part)) for part in found)]
    out.lines(output.table(lines, right=range(len(names), len(names) + 5)))
    out.line()
    out.line(f"{short(id_)}: {output.size(logical)}, {output.size(stored)} stored{_smaller(logical, stored)}")


def _part_json(part: Part, *, of_tensor: bool) -> dict[str, Any]:
    tensor = part.tensor
    names = {
        "name": tensor and tensor.name,
        "dtype": tensor and tensor.dtype,
        "shape": tensor and [*tensor.shape],
    }
    return {
        "path": show(part.path),
        **(names if of_tensor else {}),
        "logical_bytes": part.logical_bytes,
        "stored_bytes": part.stored_bytes,
        "ratio": _ratio(part.logical_bytes, part.stored_bytes),
        "chunks": part.chunks,
        "depth": part.depth,
        "codecs": [*part.codecs],
    }


def _part_names(part: Part) -> tuple[str, ...]:
    path, tensor = output.name(show(part.path)), part.tensor
    if tensor is None:
        return (path, "(no tensor)", "", "")
    return (path, output.name(tensor.name), tensor.dtype or "", "x".join(map(str, tensor.shape)))


def _part_cells(part: Part) -> tuple[str, ...]:
    sizes = (output.size(part.logical_bytes), output.size(part.stored_bytes))
    ratio = _ratio_text(part.logical_bytes, part.stored_bytes)
    return (*sizes, ratio, str(part.chunks), str(part.depth), ", ".join(part.codecs))


def _ratio(raw: int, stored: int) -> float | None:
    return round(raw / stored, 3) if stored else None


def _ratio_text(raw: int, stored: int) -> str:
    return f"{raw / stored:.2f}" if stored else ""


def _smaller(raw: int, stored: int) -> str:
    return f", {raw / stored:.1f} times smaller" if 0 < stored < raw else ""


def _title(repository: Repository, rev: str | None) -> str:
    name = show((bytes(repository.root or repository.store_path),)).rpartition("/")[2]
    return name if rev is None else f"{name} up to {rev}"


def _write_plot(target: str, title: str, found: Stats) -> None:
    if not found.versions:
        msg = "nothing to plot: there are no versions yet; `shardfs commit` makes one"
        raise UsageError(msg)
    picture = plot.stored_bytes(title, found.versions)
    file_path(target).write_text(picture, "utf-8")
