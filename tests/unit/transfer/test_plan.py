from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardfs.formats.ids import CommitId, Kind, chunk_id
from shardfs.history.objects import Objects
from shardfs.history.walk import ancestors
from shardfs.store.closure import new_commits
from shardfs.transfer import plan
from tests.stores import CHUNK_SIZE, commit, noise
from tests.unit.transfer.conftest import Side


def test_only_changes_are_walked(local: Side) -> None:
    old = noise(1, 3 * CHUNK_SIZE)
    first = commit(local.store, {"a/one": old, "a/two": b"2", "b/three": b"3"})
    second = commit(local.store, {"a/one": old, "a/two": b"new", "b/three": b"3"})
    new = new_commits(local.objects.commit, [second], [first])
    found = plan.reachable(local.objects, new)
    assert list(found.commits) == [second]
    assert found.chunks == {chunk_id(b"new"): 3}
    assert len(found.trees) == 2
    assert not found.manifests


def test_closure_is_everything(local: Side) -> None:
    first = commit(local.store, {"a": b"1", "deep/er/b": noise(1, 3 * CHUNK_SIZE)}, attachments={"log": b"text"})
    second = commit(local.store, {"a": b"2"})
    everything = {e.id for p in local.store.index.packs() for e in local.store.index.entries(p)}
    found = plan.closure(local.objects, [second])
    assert {id_ for _, id_ in found} == everything
    assert list(found.commits) == [first, second]
    assert len(found) == len(everything)


def test_other_roots_count(local: Side) -> None:
    tip = commit(local.store, {"a": noise(1, 3 * CHUNK_SIZE)})
    tree = local.objects.commit(tip).tree
    found = plan.closure(local.objects, [], [(Kind.TREE, tree), (Kind.CHUNK, bytes(32))])
    assert tree in found.trees
    assert len(found.manifests) == 1
    assert len(found.chunks) == 4


@given(data=st.data())
def test_new_commits_are_the_difference_of_the_ancestors(data: st.DataObject) -> None:
    from shardfs.formats.commit import Commit

    commits: dict[bytes, Commit] = {}
    ids: list[CommitId] = []
    for number in range(data.draw(st.integers(1, 12))):
        parents = data.draw(st.lists(st.sampled_from(ids), max_size=2, unique=True)) if ids else []
        value = Commit(chunk_id(b""), tuple(parents), "a", number, str(number))  # type: ignore[arg-type]
        commits[value.id] = value
        ids.append(value.id)

    class Source:
        def object(self, kind: Kind, id_: bytes) -> bytes:
            del kind
            return commits[id_].to_bytes()

    objects = Objects(Source())
    tips, known = data.draw(st.lists(st.sampled_from(ids))), data.draw(st.lists(st.sampled_from(ids)))
    found = new_commits(objects.commit, tips, known)
    expected = {i for i, _ in ancestors(objects, tips)} - {i for i, _ in ancestors(objects, known)}
    assert set(found) == expected
    assert len(found) == len(expected)
    for position, id_ in enumerate(found):
        assert not set(commits[id_].parents) & set(found[position:])
