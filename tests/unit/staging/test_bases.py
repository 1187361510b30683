"""What a new version of a model costs, and that all of its versions come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import shardfs
from shardfs.errors import RemoteTimeoutError
from shardfs.formats.ids import ChunkId
from shardfs.repository import Repository
from shardfs.staging.pipeline import WORKERS
from tests.areas import write
from tests.weights import State, add, content, deepest, deltas, manifest, model, save, tuned

METADATA = 20_000  # bytes: headers, manifests, trees, a commit
MODEL = "model.safetensors"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def repo(project: Path) -> Iterator[Repository]:
    with shardfs.init(project) as found:
        yield found


def reopened(repo: Repository) -> Repository:
    """The same repository as another process finds it, without what this one keeps in memory."""
    repo.close()
    return shardfs.open(".")


def read_packs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no cache, in which plaintext would be found."""
    monkeypatch.setattr("shardfs.store.cache.Cache.get", lambda *_: None)


def series(length: int, start: State | None = None) -> list[State]:
    states = [start or model()]
    while len(states) < length:
        states.append(tuned(states[-1], len(states)))
    return states


def add_state(repo: Repository, state: object, name: str = MODEL) -> int:
    """Save, add and commit; returns the bytes that took."""
    save(name, state)
    return add(repo, name).bytes_stored


def stored(repo: Repository, name: str) -> int:
    """Bytes of the payloads of a file."""
    ids = {chunk.id for chunk in manifest(repo, f"HEAD:{name}").chunks}
    return sum(repo.store.find(id_)[0].entry.stored_size for id_ in ids)


# A series over one path


def test_a_fine_tune_over_the_same_path_takes_a_fraction(repo: Repository) -> None:
    base, fine = series(2)
    alone = add_state(repo, base)
    saved = save(MODEL, fine)
    assert add(repo, MODEL).bytes_stored < 0.5 * alone
    assert len(deltas(repo, f"HEAD:{MODEL}")) > 3
    assert content(repo, f"HEAD:{MODEL}") == saved


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_fine_tune_in_other_types_takes_a_fraction_too(repo: Repository, dtype: torch.dtype) -> None:
    base = model(dtype=dtype)
    alone = add_state(repo, base)
    assert add_state(repo, tuned(base)) < 0.5 * alone


@pytest.mark.parametrize("limit", [0, 1, 3, 8])
def test_chains_are_as_long_as_the_setting_says(project: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDFS_CHAIN_DEPTH", str(limit))
    read_packs_only(monkeypatch)
    with shardfs.init(project) as repo:
        written = []
        for state in series(11, model(rows=300)):
            written.append(save(MODEL, state))
            add(repo, MODEL)
        depths = [deepest(repo, f"HEAD~{age}:{MODEL}") for age in range(len(written))]
        assert max(depths) == limit
        assert [content(repo, f"HEAD~{age}:{MODEL}") for age in range(len(written))] == written[::-1]


def test_every_version_of_a_long_series_is_small_and_readable(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_packs_only(monkeypatch)
    written: list[bytes] = []
    sizes: list[int] = []
    for state in series(20, model(rows=300)):
        written.append(save(MODEL, state))
        sizes.append(add(repo, MODEL).bytes_stored)
    assert max(sizes[1:]) < 0.6 * sizes[0]
    with reopened(repo) as fresh:
        assert [content(fresh, f"HEAD~{age}:{MODEL}") for age in range(20)] == written[::-1]
        assert fresh.verify().problems == []


def test_a_setting_that_shortens_chains_leaves_older_versions_readable(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    for state in series(5, model(rows=300)):
        written.append(save(MODEL, state))
        add(repo, MODEL)
    monkeypatch.setenv("SHARDFS_CHAIN_DEPTH", "1")
    with reopened(repo) as fresh:
        written.append(save(MODEL, tuned(series(5, model(rows=300))[-1], 9)))
        add(fresh, MODEL)
        assert deepest(fresh, f"HEAD:{MODEL}") == 1
        assert [content(fresh, f"HEAD~{age}:{MODEL}") for age in range(6)] == written[::-1]


# The same weights elsewhere


def wrapped(state: State) -> dict[str, object]:
    return {"epoch": 7, "model": state, "note": "x" * 100}


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("other.safetensors", dict),
        ("model.pt", dict),
        ("deep/down/model.pt", wrapped),
        ("renamed.pt", lambda state: {name.upper(): tensor for name, tensor in state.items()}),
        ("backwards.safetensors", lambda state: dict(reversed(state.items()))),
    ],
    ids=["name", "container", "wrapped", "keys", "order"],
)
@pytest.mark.parametrize("when", ["together", "later", "after a restart"])
def test_the_same_weights_in_another_file_cost_metadata(
    repo: Repository, name: str, wrap: Callable[[State], object], when: str
) -> None:
    base, fine = series(2)
    add_state(repo, base)
    saved = {MODEL: save(MODEL, fine), name: save(name, wrap(fine))}
    if when == "together":
        together = add(repo, *saved).bytes_stored
        assert together < stored(repo, MODEL) + METADATA
    else:
        add(repo, MODEL)
        repo = reopened(repo) if when == "after a restart" else repo
        assert add(repo, name).bytes_stored < METADATA
    assert {path: content(repo, f"HEAD:{path}") for path in saved} == saved
    repo.close()


def test_arrays_of_one_shape_are_told_apart_by_their_bytes(repo: Repository) -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal((1024, 512), np.float32) for _ in range(3)]
    add_state(repo, {f"layer.{number}": torch.from_numpy(array) for number, array in enumerate(arrays)})
    for number, array in enumerate(arrays):
        np.save(f"{number}.npy", array)
    assert add(repo, "*.npy").bytes_stored < METADATA


def test_a_renamed_file_costs_a_tree(repo: Repository) -> None:
    add_state(repo, model())
    Path("kept").mkdir()
    Path(MODEL).rename("kept/best.safetensors")
    assert add(repo, ".").bytes_stored < 1000


def test_the_stem_that_torch_puts_into_a_file_does_not_matter(repo: Repository) -> None:
    fine = model()
    add_state(repo, fine, "first.pt")
    assert add_state(repo, fine, "a-much-longer-name-than-that.pt") < METADATA


def test_a_fine_tune_under_another_name_is_a_difference(repo: Repository) -> None:
    base, fine = series(2)
    alone = add_state(repo, base, "epoch-1.safetensors")
    assert add_state(repo, fine, "epoch-2.safetensors") < 0.5 * alone
    assert add_state(repo, {"model": tuned(fine, 5)}, "epoch-3.pt") < 0.5 * alone


def test_siblings_on_two_branches_are_differences_to_what_they_began_with(repo: Repository) -> None:
    base, fine = series(2)
    alone = add_state(repo, base)
    repo.switch("left", create=True)
    left = save(MODEL, fine)
    assert add(repo, MODEL).bytes_stored < 0.5 * alone
    repo.switch("main")
    right = save(MODEL, tuned(base, 77))
    assert add(repo, MODEL).bytes_stored < 0.5 * alone
    assert [content(repo, f"{rev}:{MODEL}") for rev in ("left", "main")] == [left, right]


def test_a_state_of_an_optimizer_is_stored_beside_the_weights(repo: Repository) -> None:
    def checkpoint(state: State, step: int) -> dict[str, object]:
        moments = {i: {"step": step, "exp_avg": t * 0.1, "exp_avg_sq": t * t} for i, t in enumerate(state.values())}
        return {"model": state, "optimizer": {"state": moments, "param_groups": [{"lr": 1e-4}]}, "step": step}

    base, fine = series(2)
    alone = add_state(repo, checkpoint(base, 1), "training.pt")
    saved = save("training.pt", checkpoint(fine, 2))
    assert add(repo, "training.pt").bytes_stored < 0.6 * alone
    assert content(repo, "HEAD:training.pt") == saved


# Tensors that change their shape


def rows(count: int) -> torch.Tensor:
    return model(99, rows=count)["embed.weight"]


RESIZED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "appended": lambda old: torch.cat([old, rows(10)]),
    "many appended": lambda old: torch.cat([old, rows(3000)]),
    "inserted": lambda old: torch.cat([old[:9000], rows(10), old[9000:]]),
    "prepended": lambda old: torch.cat([rows(10), old]),
    "removed": lambda old: torch.cat([old[:9000], old[9003:]]),
    "cut off": lambda old: old[:-7],
}


@pytest.mark.parametrize("how", RESIZED)
@pytest.mark.parametrize("before", [0, 2], ids=["a first version", "a fine-tune"])
def test_rows_that_come_or_go_leave_most_chunks_as_they_are(repo: Repository, how: str, before: int) -> None:
    for state in series(before + 1, {"embed.weight": rows(18_000)}):
        add_state(repo, state)
    chunks = set(manifest(repo, f"HEAD:{MODEL}").chunks)
    saved = save(MODEL, {"embed.weight": RESIZED[how](state["embed.weight"])})
    add(repo, MODEL)
    shared = sum(chunk.size for chunk in manifest(repo, f"HEAD:{MODEL}").chunks if chunk in chunks)
    assert shared > 0.6 * len(saved) if how != "many appended" else 0.5 * len(saved)
    assert content(repo, f"HEAD:{MODEL}") == saved
    repo.gc(grace_s=0)
    assert repo.verify().problems == []


@pytest.mark.parametrize("how", RESIZED)
def test_rows_may_come_or_go_while_the_others_are_trained(repo: Repository, how: str) -> None:
    base = {"embed.weight": rows(18_000)}
    alone = add_state(repo, base)
    fine = tuned(base)["embed.weight"]
    saved = save(MODEL, {"embed.weight": RESIZED[how](fine)})
    assert add(repo, MODEL).bytes_stored < alone
    assert content(repo, f"HEAD:{MODEL}") == saved
    again = save(MODEL, tuned({"embed.weight": RESIZED[how](fine)}, 4))
    assert add(repo, MODEL).bytes_stored < 0.5 * alone * len(again) / (18_000 * 512)
    assert content(repo, f"HEAD:{MODEL}") == again


# Files that change altogether


def odd(state: State) -> dict[str, object]:
    """Shapes without rows, columns or elements, views, one storage under two names."""
    big = state["embed.weight"]
    return {
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 7),
        "flat": big.reshape(-1)[:100_001].clone(),
        "deep": big[:1024].reshape(2, 1, 512, 1, 128).clone(),
        "transposed": big.t(),
        "tied": big,
        "every other row": big[::2],
    }


def special(state: State) -> State:
    """NaNs with all payloads, infinities, both zeros."""
    bits = state["embed.weight"].clone().view(torch.int32)
    bits[::3] = torch.arange(bits[::3].numel(), dtype=torch.int32).reshape(bits[::3].shape) | 0x7F800000
    bits[1::6] |= -0x80000000
    bits[2] = 0
    return state | {"embed.weight": bits.view(torch.float32)}


CHANGES: dict[str, Callable[[State], object]] = {
    "another type": lambda s: {n: t.to(torch.bfloat16) for n, t in s.items()},
    "integers": lambda s: s | {"embed.weight": (s["embed.weight"] * 1000).to(torch.int8)},
    "another order": lambda s: dict(reversed(s.items())),
    "a tensor more": lambda s: {"a.first": torch.randn(300, 300)} | s,
    "a tensor less": lambda s: {n: t for n, t in s.items() if n != "layer.0.weight"},
    "below the limit": lambda s: {n: t[:20] for n, t in s.items()},
    "one column more": lambda s: s | {"embed.weight": torch.nn.functional.pad(s["embed.weight"], (0, 1))},
    "special values": special,
    "zeros": lambda s: {n: torch.zeros_like(t) for n, t in s.items()},
    "odd shapes": odd,
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_model_may_become_another(repo: Repository, how: str) -> None:
    base = model()
    name = "model.pt" if how in {"odd shapes", "another order"} else MODEL
    written = [save(name, base)]
    add(repo, name)
    for change in (CHANGES[how](base), CHANGES[how](tuned(base)), tuned(base, 3)):
        written.append(save(name, change))
        add(repo, name)
    with reopened(repo) as fresh:
        assert [content(fresh, f"HEAD~{age}:{name}") for age in range(4)] == written[::-1]
        assert fresh.verify().problems == []


def test_a_file_may_become_one_of_another_kind(repo: Repository) -> None:
    written = []
    for number, state in enumerate(series(3)):
        save(MODEL, state)
        save("model.pt", state)
        Path("model.bin").write_bytes(np.random.default_rng(number).bytes(700_000))
        for source in (MODEL, "model.pt", "model.bin"):
            written.append(Path(source).read_bytes())
            Path("file").write_bytes(written[-1])
            add(repo, "file")
    assert [content(repo, f"HEAD~{age}:file") for age in range(len(written))] == written[::-1]


def test_a_small_change_of_a_large_file_of_no_known_kind_is_small(repo: Repository) -> None:
    data = bytearray(np.random.default_rng(1).bytes(5_000_000))
    Path("file").write_bytes(data)
    add(repo, "file")
    data[2_000_000:2_000_010] = b"0123456789"
    Path("file").write_bytes(data)
    assert add(repo, "file").bytes_stored < METADATA
    assert content(repo, "HEAD:file") == data


def test_a_version_with_holes_follows_one_without(repo: Repository) -> None:
    base = model()
    written = [save(MODEL, base)]
    add(repo, MODEL)
    written.append(save(MODEL, base | {"embed.weight": torch.zeros(2000, 128)}))
    with Path(MODEL).open("r+b") as file:
        data = file.read()
        start = next(i for i in range(0, len(data), 4096) if not any(data[i : i + 900_000]))
        file.truncate(start)
        file.seek(start + 900_000)
        file.write(data[start + 900_000 :])
    add(repo, MODEL)
    written.append(save(MODEL, tuned(base)))
    add(repo, MODEL)
    assert [content(repo, f"HEAD~{age}:{MODEL}") for age in range(3)] == written[::-1]


# Through the other door, and without what bases are found by


def test_files_written_into_staging_are_differences_too(repo: Repository) -> None:
    base, fine = series(2)
    alone = add_state(repo, base)
    saved = save("elsewhere.safetensors", fine)
    area = repo.area()
    area.start_session("a mount")
    write(area, MODEL.encode(), saved)
    repo.commit("through staging")
    assert stored(repo, MODEL) < 0.5 * alone
    assert content(repo, f"HEAD:{MODEL}") == saved


def test_a_remote_that_does_not_answer_is_waited_for_once(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each chunk would else wait for its deadline."""
    base, fine = series(2)
    alone = add_state(repo, base)
    repo.add_remote("origin", (tmp_path / "server").as_uri())
    repo.push()
    with shardfs.clone((tmp_path / "server").as_uri(), tmp_path / "lazy") as lazy:
        read = lazy.chunks.chunk
        header = manifest(lazy, f"HEAD:{MODEL}").chunks[0].id
        asked: list[ChunkId] = []

        def chunk(id_: ChunkId, size: int) -> bytes:
            if id_ == header:  # so that bases for the tensors are looked for
                return read(id_, size)
            asked.append(id_)
            raise RemoteTimeoutError("no answer")

        monkeypatch.setattr(lazy.chunks, "chunk", chunk)
        monkeypatch.chdir(tmp_path / "lazy")
        saved = save(MODEL, fine)
        assert add(lazy, MODEL).bytes_stored > 0.9 * alone
        assert 1 <= len(asked) <= WORKERS
        monkeypatch.undo()
        assert content(lazy, f"HEAD:{MODEL}") == saved
