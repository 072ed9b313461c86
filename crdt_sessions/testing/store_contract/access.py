"""The contract of a store: members and revocations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crdt_sessions.errors import SessionNotFound
from crdt_sessions.ids import Millis
from crdt_sessions.storage import Revocation
from crdt_sessions.testing.store_contract.suite import NOW, A, B, StoreSuite


class AccessContract(StoreSuite):
    """What a store promises of members and revocations."""

    async def test_members_are_those_of_a_session_and_go_with_it(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            with pytest.raises(SessionNotFound):
                await store.set_member(A, "ann", "owner")
            for session in (A, B):
                await store.create(session, b"seed", generation=1, title=None, now=NOW)
            await store.set_member(A, "ann", "viewer")
            await store.set_member(A, "ann", "owner")
            await store.set_member(A, "bob", "viewer")
            await store.set_member(A, "bob", None)
            assert await store.members(A) == {"ann": "owner"}
            assert await store.members(B) == {}
            await store.delete(A, now=NOW)
            assert await store.members(A) == {}

    async def test_revocations_are_kept_and_a_later_one_counts(self, tmp_path: Path) -> None:
        first = Revocation("", "token", "t", NOW)
        later = Revocation("acme", "principal", "ann", Millis(NOW + 5))
        async with self.open(tmp_path) as store:
            await store.revoke(first)
            await store.revoke(replace(later, at=NOW))
            await store.revoke(later)
            assert sorted(await store.revocations(), key=lambda each: each.tenant) == [first, later]
