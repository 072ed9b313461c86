"""The harness is tested too: broken in the ways in which others were broken, the code does not pass.

Each mutant is a copy of the packages with one piece changed, and the tests that attack the promise it breaks.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest

from tests.interop.node import AVAILABLE
from tests.processes import ROOT
from tests.profiles import sample

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@dataclass
class Mutant:
    file: str
    was: str
    becomes: str
    tests: tuple[str, ...]
    needs_node: bool = False


MUTANTS = {
    "acknowledge before commit, on the simulated network": Mutant(
        "crdt_sessions/sync/peers.py",
        "while self.due and self.due[0][0] <= tail:",
        "while self.due:",
        ("tests/sync/test_engine.py::test_nothing_is_broadcast_or_acknowledged_before_it_is_committed",),
    ),
    "acknowledge before commit": Mutant(  # at once: with the commit before, a slow machine has nothing to acknowledge
        "crdt_sessions/sync/attached.py",
        "        peer.due.append((self._log.head, answer))\n        return [Ready(peer_id)] if",
        "        peer.due.append((self._log.tail, answer))\n        return [Ready(peer_id)] if True or",
        ("tests/crash/test_kills.py::test_the_service_dies_at_every_named_point",),
        needs_node=True,
    ),
    "broadcast before commit": Mutant(
        "crdt_sessions/sync/log.py",
        "        self.head = Seq(self.head + 1)",
        "        self.head = self.tail = Seq(self.head + 1)",
        ("tests/sync/test_engine.py::test_nothing_is_broadcast_or_acknowledged_before_it_is_committed",),
    ),
    "truncate before verify": Mutant(
        "crdt_sessions/model/folding.py",
        "        if whole.waiting != EMPTY_UPDATE:\n            return Folded(merge(rows), waits=True)\n",
        "",
        ("tests/runtime/test_registry.py::test_what_waits_in_rows_of_an_earlier_release_survives_compaction_and_restart",),
    ),
    "persist before apply": Mutant(
        "crdt_sessions/sync/merge.py",
        "        self.check_size(len(update))\n        if isinstance(verdict, Passed)",
        "        self.check_size(len(update))\n        self._early = self._persist(update, None, author)\n        if isinstance(verdict, Passed)",
        ("tests/sync/test_engine.py::test_an_echo_is_neither_stored_nor_sent_but_acknowledged",),
    ),
    "believe one wrong clock": Mutant(
        "crdt_sessions/sync/plain.py",
        "next_insertion(stream.name, clock, HAS_ORIGIN | STRING)",
        "next_insertion(stream.name, clock + 1, HAS_ORIGIN | STRING)",
        ("tests/sync/test_deferred.py",),
    ),
    "show what lacks the last words": Mutant(
        "crdt_sessions/model/document.py",
        "            self.settle()\n        return self._roots\n",
        "            pass\n        return self._roots\n",
        ("tests/sync/test_deferred.py",),
    ),
    "forward raw awareness": Mutant(
        "crdt_sessions/sync/awareness.py",
        "may_speak = self._can_have_come(entry, now) and self._may_speak(peer, principal, client)",
        "may_speak = True",
        ("tests/hostile/test_peers.py::test_a_presence_in_anothers_name_is_ignored",),
    ),
    "unbounded outbox": Mutant(
        "crdt_sessions/sync/log.py",
        "self.bytes += ENTRY_BYTES + len(delta or b\"\")",
        "self.bytes += 0",
        ("tests/sync/test_engine.py::test_a_peer_that_fell_off_the_log_is_resynced_from_the_document",),
    ),
    "drop the tail on unload": Mutant(
        "crdt_sessions/runtime/journal.py",
        "        while self.flushing and not self._stopped:\n",
        "        while False:\n",
        ("tests/runtime/test_registry.py::test_what_is_about_to_be_stored_is_stored_when_close_returns",),
    ),
    "apply what was refused elsewhere": Mutant(
        "crdt_sessions/runtime/shadow.py",
        "        if self.ahead:\n            self.spoil()",
        "        self.ahead.clear()",
        ("tests/runtime/test_sandbox.py::test_the_mirror_is_made_anew_after_what_was_refused_elsewhere",),
    ),
    "write while the store takes nothing": Mutant(
        "crdt_sessions/runtime/effects.py",
        "        if self._health.error is not None:\n            raise self._health.error\n",
        "",
        ("tests/runtime/test_load.py::test_an_outage_from_begin_to_end",),
    ),
    "take in a copy of another session": Mutant(
        "crdt_sessions/runtime/sandbox_process.py",
        "    if theirs is not None and theirs != lineage.decode():\n",
        "    if False:\n",
        ("tests/runtime/test_lineage.py",),
    ),
    "give a copy of another session what this one holds": Mutant(
        "crdt_sessions/sync/owed.py",
        "        if peer.step1 is not None and peer.stranger_since is None:\n",
        "        if peer.step1 is not None:\n",
        ("tests/runtime/test_lineage.py",),
    ),
    "apply what nobody has tried": Mutant(
        "crdt_sessions/sync/inbound.py",
        "        if verdict is None:\n            return Doubt(update, apply=writes",
        "        from crdt_sessions.sync.events import TRUSTED\n        verdict = verdict or TRUSTED\n        if verdict is None:\n            return Doubt(update, apply=writes",
        ("tests/sync/test_admission.py",),
    ),
    "try two updates at a time": Mutant(
        "crdt_sessions/sync/inbound.py",
        "        if admission.trial is None and refused is None and peer_id",
        "        if refused is None and peer_id",
        ("tests/sync/test_admission.py",),
    ),
    "take what a stranger writes": Mutant(
        "crdt_sessions/sync/inbound.py",
        "            if not peer.known:\n                frames =",
        "            if False:\n                frames =",
        ("tests/sync/test_engine.py",),
    ),
    "let everybody decide": Mutant(
        "crdt_sessions/sync/merge.py",
        "        writes, violated = self._rules.check(touched, actor)\n",
        "        writes, violated = self._rules.check(touched, None)\n",
        ("tests/sync/test_rules.py::test_a_decision_in_somebody_elses_name_counts_for_nothing",),
    ),
    "believe whose a client is": Mutant(
        "crdt_sessions/sync/writers.py",
        "            if self._enforce:\n                raise ForeignWriter(client=foreign[0])\n",
        "",
        ("tests/sync/test_rules.py::test_a_client_belongs_to_the_first_principal_that_brings_its_new_structs",),
    ),
    "let a token choose its algorithm": Mutant(
        "server/crdt_sessions_server/auth/jwt.py",
        "        if symmetric and self._secret is not None:\n            return self._secret, [\"HS256\"]\n",
        "        if self._secret is not None:\n            return self._secret, [str(header.get(\"alg\"))]\n",
        ("tests/access/test_tokens.py",),
    ),
    "forget a revocation": Mutant(
        "server/crdt_sessions_server/auth/grants.py",
        "        self.on_change(Change(each.tenant, token_id=each.value) if by_token else Change(each.tenant, each.value))\n",
        "",
        ("tests/access/test_live_access.py",),
    ),
    "allow a route that nobody thought of": Mutant(
        "server/crdt_sessions_server/auth/permissions.py",
        '    "sessions.delete_session": Permission.MANAGE,\n',
        '    "sessions.delete_session": Permission.READ,\n',
        ("tests/access/test_matrix.py::test_the_documents_show_the_table",),
    ),
    "ask for nothing that lacks": Mutant(
        "crdt_sessions/sync/peers.py",
        "        self.asked, self.answered, self.asked_at = False, False, now\n",
        "        self.answered, self.asked_at = False, now\n",
        ("tests/sync/test_waiting.py",),
    ),
    "acknowledge what waits": Mutant(
        "crdt_sessions/sync/attached.py",
        "        if (last := self._waiting.last_of(peer_id)) is not None:\n",
        "        if (last := None) is not None:\n",
        ("tests/sync/test_waiting.py",),
    ),
    "one space of names for all tenants": Mutant(
        "crdt_sessions/ids.py",
        'return SessionId(f"{tenant}/{name}" if tenant else name)',
        "return SessionId(name)",
        ("tests/runtime/test_tenants.py",),
    ),
    "two at once after a question": Mutant(
        "crdt_sessions/sync/runs/turns.py",
        "(other.order < record.order or begun)",
        "other.order < record.order",
        ("tests/sync/test_runs.py::test_one_run_at_a_time_works_and_who_was_kept_waiting_comes_first",),
    ),
    "anybody closes a question by talking": Mutant(
        "crdt_sessions/sync/runs/beginnings.py",
        "if asked_before and all(may_decide(each.request, asker) for each in waits):",
        "if asked_before:",
        ("tests/sync/test_runs.py::test_others_are_answered_while_a_question_stays_open",),
    ),
    "a stop ends with the run that is stopped": Mutant(
        "crdt_sessions/sync/runs/endings.py",
        "            self.cancel(child, stop_with(cancel, now), now)\n",
        "            pass\n",
        ("tests/sync/test_children.py::test_a_stop_reaches_all_below_it_in_one_commit_and_nobody_else",),
    ),
    "calls outlive their run": Mutant(
        "crdt_sessions/sync/runs/endings.py",
        "        self._table.decided.writes.append(end_calls(ended.output, status))\n",
        "",
        ("tests/sync/test_runs.py::test_the_end_of_a_run_ends_its_calls",),
    ),
    "no fence in the statement": Mutant(
        "crdt_sessions/storage/postgres/statements.py",
        "lane = $3 AND NOT fenced\"",
        "lane = $3\"",
        ("tests/storage/test_fence.py::test_a_write_that_waits_for_a_fence_stores_nothing_though_its_connection_lives",),
    ),
    "take a session that was taken since": Mutant(
        "crdt_sessions/storage/postgres/runs.py",
        "WHERE sessions.owner IS NOT DISTINCT FROM found.owner AND deleted_at IS NULL\"",
        "WHERE deleted_at IS NULL\"",
        ("tests/storage/test_across.py::test_what_was_taken_since_it_was_read_is_not_taken_again",),
    ),
    "take a delivery for no time": Mutant(
        "crdt_sessions/storage/postgres/deliveries.py",
        "SET taken = $4, next_at = $5 WHERE",
        "SET taken = $4, next_at = least(next_at, $5) WHERE",
        ("tests/storage/test_across.py::test_a_delivery_is_taken_by_one_node_and_by_another_if_nothing_becomes_of_it",),
    ),
    "count sessions as they were before the wait": Mutant(
        "crdt_sessions/storage/postgres/log.py",
        "WHERE of_one.sessions < ${0} RETURNING 1",
        "WHERE (SELECT count(*) FROM sessions WHERE tenant = $11 AND deleted_at IS NULL) < ${0} RETURNING 1",
        ("tests/storage/test_across.py::test_of_two_sessions_for_which_there_is_one_place_the_one_that_waited_is_not_made",),
    ),
    "see the fence as it was before the wait": Mutant(
        "crdt_sessions/storage/postgres/statements.py",
        "\"WITH fence AS (UPDATE lanes SET commits = $1 WHERE node = $2 AND lane = $3 AND NOT fenced\"\n    \" AND commits = $1 - 1 RETURNING 1)\"",
        "\"WITH locked AS (UPDATE lanes SET commits = $1 WHERE node = $2 AND lane = $3 RETURNING 1), fence AS (\"\n    \"SELECT 1 FROM lanes WHERE node = $2 AND lane = $3 AND NOT fenced AND commits = $1 - 1)\"",
        ("tests/storage/test_fence.py::test_a_write_that_waits_for_a_fence_stores_nothing_though_its_connection_lives",),
    ),
    "read where a log ends before one has it": Mutant(
        "crdt_sessions/storage/postgres/lane.py",
        "                await self._acquire(free)\n",
        "                await self._acquire(free)\n                found |= {row['id']: self._heads.read(row['id'], Head(row['sid'], row[4])) for row in free}\n",
        ("tests/storage/test_fence.py::test_what_was_written_between_the_look_and_the_taking_is_seen",),
    ),
    "free a session before its last write": Mutant(
        "crdt_sessions/storage/postgres/database.py",
        "await self._in(self._lane(session), Release(session))",
        "await self._in(self._lanes[self._lanes.index(self._lane(session)) - 1], Release(session))",
        ("tests/storage/test_fence.py::test_a_session_is_free_behind_everything_that_was_written_of_it",),
    ),
    "take a cancelled wait for a commit": Mutant(
        "crdt_sessions/storage/postgres/lane_connection.py",
        "            if self._unreplicated:\n                raise Unknown(",
        "            if False:\n                raise Unknown(",
        ("tests/storage/test_fence.py::test_a_cancelled_wait_for_a_standby_is_no_acknowledgement",),
    ),
    "know ends of logs over a new connection": Mutant(
        "crdt_sessions/storage/postgres/heads.py",
        "for session, head in self._known.items())\n        self._known = {}\n",
        "for session, head in self._known.items())\n",
        ("tests/storage/test_fence.py::test_less_than_was_acknowledged_is_told_once_and_then_gone_on_from",),
    ),
    "fence a node and leave its connections": Mutant(
        "crdt_sessions/storage/postgres/fencing.py",
        "            await connection.execute(_END, node)  #",
        "            pass  #",
        ("tests/storage/test_fence.py::test_a_transaction_that_was_left_open_holds_up_no_fence",),
    ),
    "pass on what was passed on": Mutant(
        "server/crdt_sessions_server/cluster/hop.py",
        "    return _KEY in scope\n",
        "    return False\n",
        ("tests/cluster/test_routing.py::test_a_request_that_was_passed_on_goes_no_further",),
    ),
    "a node that slept thinks that it lives": Mutant(
        "crdt_sessions/storage/postgres/nodes.py",
        "        return _steady() < self._serves_until\n",
        "        return True\n",
        ("tests/storage/test_fence.py::test_a_node_that_slept_knows_before_it_asks_that_it_may_be_gone",),
    ),
    "tell what one has after others may have gone on": Mutant(
        "server/crdt_sessions_server/cluster/silence.py",
        'if self._may_tell() or event["type"] == "websocket.close":',
        "if True:",
        ("tests/cluster/test_silence.py",),
    ),
    "write a run twice in one statement": Mutant(
        "crdt_sessions/storage/postgres/records.py",
        "            runs[key] = (*key, tenant,",
        "            runs[(*key, len(runs))] = (*key, tenant,",
        ("tests/storage/test_fence.py::test_a_run_that_changes_twice_in_one_commit_is_stored_as_it_was_last",),
    ),
    "write again what may be stored": Mutant(
        "crdt_sessions/storage/postgres/lane_connection.py",
        "            if self._commits < number:\n",
        "            if True:\n",
        ("tests/storage/test_fence.py::test_a_connection_lost_around_the_commit_is_looked_up",),
    ),
    "wait for a server that says nothing": Mutant(
        "crdt_sessions/storage/postgres/servers.py",
        "timeout=_HEAD_START_S if to_come else None",
        "timeout=None",
        ("tests/storage/test_servers.py::test_behind_a_server_that_says_nothing_the_next_one_is_asked_and_first_from_then_on",),
    ),
    "send away who comes while the store is away": Mutant(
        "crdt_sessions/runtime/registry.py",
        "await self.health.outlast(entering)",
        "await entering()",
        ("tests/runtime/test_load.py::test_who_comes_while_the_store_is_away_waits_and_is_served_as_soon_as_it_is_back",),
    ),
    "find out only those that were seen": Mutant(
        "crdt_sessions/storage/postgres/nodes.py",
        "if node in self._freed or node == self.me:",
        "if node not in self._seen or node == self.me:",
        ("tests/storage/test_servers.py::test_a_node_that_died_is_found_out_without_a_beat_a_lease_or_a_second_connection",),
    ),
    "hear of no revocation elsewhere": Mutant(
        "server/crdt_sessions_server/auth/grants.py",
        "                self._revocation_made(each)\n",
        "                pass\n",
        ("tests/access/test_nodes.py::test_what_is_revoked_at_one_node_is_closed_at_the_others_within_a_second",),
    ),
    "say that it is stored before it is, among nodes": Mutant(
        "crdt_sessions/runtime/effects.py",
        "            stored = self._stored(head)\n            if not stored:",
        "            stored = True\n            if not stored:",
        ("tests/runtime/test_nodes.py::test_nothing_acknowledged_is_lost_and_one_node_at_a_time_writes",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_what_a_mutant_changes_is_there(name):
    mutant = MUTANTS[name]
    source = (ROOT / mutant.file).read_text("utf-8")
    assert source.count(mutant.was) == 1, "the piece to change is not there any more: change the mutant with the code"


@pytest.mark.parametrize("name", [*MUTANTS][:: sample("mutants")])
def test_the_harness_notices(tmp_path, name):
    mutant = MUTANTS[name]
    if mutant.needs_node and not AVAILABLE:
        pytest.skip("needs Node")
    for folder in ("crdt_sessions", "server"):
        shutil.copytree(ROOT / folder, tmp_path / folder)  # and what is compiled: it is as old as its sources
    path = tmp_path / mutant.file
    path.write_text(path.read_text("utf-8").replace(mutant.was, mutant.becomes), "utf-8")
    search = f"{tmp_path}{os.pathsep}{tmp_path / 'server'}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "no:xdist", *mutant.tests,
         "--override-ini", f"pythonpath={tmp_path} {tmp_path / 'server'} {ROOT}", "--timeout", "120"],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": search, "TREE": str(tmp_path), "HYPOTHESIS_PROFILE": "dev", "KILLS": "5",
             "SHRINKING": "0",
             "PATIENCE": "10"},
    )  # fmt: skip
    assert done.returncode == 1, f"nobody noticed: {name}\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
    assert "failed" in done.stdout
    assert "ERROR collecting" not in done.stdout, done.stdout[-3000:]
