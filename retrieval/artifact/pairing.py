"""Pairing: the gallery of an artifact with a collection of a vector database that holds its vectors.

A collection names the artifacts whose points are all there, by the hash of their manifests. So an artifact never
searches the vectors of another one. A new version is added by difference, and the one before can still be served.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval.arrays import Ids
from retrieval.artifact.golden import replay_rows, replay_text_rows
from retrieval.artifact.load import Artifact
from retrieval.artifact.parts.text import TEXT
from retrieval.artifact.tags import RowTags
from retrieval.console import Progress, command
from retrieval.errors import StoreError
from retrieval.stores.paired import PairedStore
from retrieval.stores.servers.base import Collection, State
from retrieval.stores.servers.lease import Check
from retrieval.stores.servers.open import open_collection

_AT_ONCE = 1_000  # points sent at a time


@dataclass(frozen=True)
class Filled:
    """What filling a collection changed."""

    added: int
    leaving: int
    """Points that the new version does not have; they stay until the next one, for apps that serve the one before."""
    rows: int


def pair(artifact: Artifact, uri: str) -> PairedStore:
    """The store of an artifact's gallery in the collection at this URI.

    Raises StoreError unless the collection holds exactly this version of the artifact, among others, and IntegrityError
    if its vectors do not give the scores of the golden query.
    """
    collection = open_collection(uri)
    try:
        _check_held(collection, artifact)
        store = PairedStore(uri, collection, RowTags(artifact.gallery).keys(), artifact.store.dim)
        _replay(artifact, store)
    except BaseException:
        collection.close()  # an app that waits for a version comes back again and again
        raise
    return store


def _replay(artifact: Artifact, store: PairedStore) -> None:
    """Repeat the golden queries with the vectors of a collection; raises IntegrityError."""
    replay_rows(artifact.manifest["golden"], artifact.encoder, store, artifact.gallery)
    if artifact.text and artifact.text.store is artifact.store:  # one tower
        replay_text_rows(artifact.manifest[TEXT]["golden"], artifact.text.encoder, store)


def _check_held(collection: Collection, artifact: Artifact) -> None:
    """Raise StoreError unless a collection holds this version of an artifact."""
    state, own = collection.state(), artifact.manifest["manifest_sha256"]
    fill = command(f"index {artifact.folder} --to {collection.uri}")
    if state is None:
        raise StoreError(f"{collection.uri} has no collection of Lookalike: `{fill}` fills it.")
    _check_encoder(state, artifact, collection)
    if own not in state.versions:
        held = ", ".join(version[:12] for version in state.versions) or "none"
        raise StoreError(f"{collection.uri} does not hold this version, {own[:12]}, but {held}: `{fill}` adds it.")


def fill(artifact: Artifact, uri: str, progress: Progress | None = None) -> Filled:
    """Add a version of an artifact to the collection at this URI, which is made if there is none.

    Only what it does not have is sent, so it continues where it was interrupted. The version before stays until the
    next one. `progress` receives the points sent and their number. Raises StoreError, also if another process fills it.
    """
    collection = open_collection(uri)
    try:
        with collection.alone() as check:
            return _filled(collection, artifact, check, progress)
    finally:
        collection.close()


def _filled(collection: Collection, artifact: Artifact, check: Check, progress: Progress | None) -> Filled:
    state = collection.state() or State(artifact.encoder.fingerprint, artifact.store.dim, {})
    _check_encoder(state, artifact, collection)
    collection.create(state)
    own, rows = artifact.manifest["manifest_sha256"], len(artifact.gallery)
    if [*state.versions][-1:] == [own]:
        return Filled(0, 0, rows)
    before = dict([*state.versions.items()][-1:])
    collection.set_versions(before)  # what is deleted next was of the one before that
    collection.delete_leaving()
    there, keys, added = _sent(collection, artifact, progress)
    check()
    # In this order: what is marked may be deleted when the collection is filled again after an interruption.
    collection.set_versions({**before, own: rows})
    leaving = there[~np.isin(there, keys)]
    collection.mark_leaving(leaving)
    return Filled(added, len(leaving), rows)


def _sent(collection: Collection, artifact: Artifact, progress: Progress | None) -> tuple[Ids, Ids, int]:
    """Send what a collection does not have: the keys that were there, those of the artifact, and how many were sent."""
    tags = RowTags(artifact.gallery)
    keys, there = tags.keys(), collection.keys()
    new = np.flatnonzero(~np.isin(keys, there))
    for at in range(0, len(new), _AT_ONCE):
        rows = new[at : at + _AT_ONCE]
        collection.upsert(keys[rows], artifact.store.vectors(rows), tags.of(rows))
        if progress:
            progress(min(at + _AT_ONCE, len(new)), len(new))
    collection.finish()
    if missing := int((~np.isin(keys, collection.keys())).sum()):
        raise StoreError(f"{collection.uri} lacks {missing:,} of {len(keys):,} points after it was filled: try again.")
    return there, keys, len(new)


def _check_encoder(state: State, artifact: Artifact, collection: Collection) -> None:
    wanted = artifact.encoder.fingerprint, artifact.store.dim
    if (state.encoder, state.dim) != wanted:
        raise StoreError(
            f"{collection.uri} holds {state.dim} dimensions of the encoder {state.encoder[:12]}, but the artifact has "
            f"{wanted[1]} of {wanted[0][:12]}: give the address another collection."
        )
