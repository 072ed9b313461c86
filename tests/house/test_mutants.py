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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@dataclass
class Mutant:
    file: str
    was: str
    becomes: str
    tests: tuple[str, ...]
    needs_node: bool = False


MUTANTS = {
    "acknowledge before commit": Mutant(
        "crdt_sessions/sync/engine.py",
        "while peer.due and peer.due[0][0] <= self.log.tail:",
        "while peer.due:",
        ("tests/crash/test_kills.py::test_the_service_dies_at_every_named_point",),
        needs_node=True,
    ),
    "acknowledge before commit, on the simulated network": Mutant(
        "crdt_sessions/sync/engine.py",
        "while peer.due and peer.due[0][0] <= self.log.tail:",
        "while peer.due:",
        ("tests/sync/test_engine.py", "tests/convergence"),
    ),
    "broadcast before commit": Mutant(
        "crdt_sessions/sync/log.py",
        "        self.head = Seq(self.head + 1)",
        "        self.head = self.tail = Seq(self.head + 1)",
        ("tests/sync/test_engine.py", "tests/convergence"),
    ),
    "truncate before verify": Mutant(
        "crdt_sessions/model/document.py",
        "        if whole.waiting != EMPTY_UPDATE:\n            return Folded(merge(rows), waits=True)\n",
        "",
        ("tests/runtime/test_registry.py", "tests/runtime/test_sandbox.py", "tests/model"),
    ),
    "persist before apply": Mutant(
        "crdt_sessions/sync/engine.py",
        "        self._check_size(len(update))\n        if (passed",
        "        self._check_size(len(update))\n        self._early = self._persist(update, None, author)\n        if (passed",
        ("tests/sync/test_engine.py", "tests/runtime"),
    ),
    "forward raw awareness": Mutant(
        "crdt_sessions/sync/awareness.py",
        "elif not may_speak or (len(self._table)",
        "elif (len(self._table)",
        ("tests/sync/test_engine.py", "tests/hostile/test_peers.py::test_a_presence_in_anothers_name_is_ignored"),
    ),
    "unbounded outbox": Mutant(
        "crdt_sessions/sync/log.py",
        "while self._entries and self._bytes > self._max_bytes and self._entries[0].seq <= self.tail:",
        "while False:",
        ("tests/sync/test_engine.py", "tests/hostile/test_peers.py::test_a_peer_that_never_reads_delays_nobody_and_grows_nothing"),
    ),
    "drop the tail on unload": Mutant(
        "crdt_sessions/runtime/session.py",
        "        while self._flushing and self.failed is None:\n",
        "        while False:\n",
        ("tests/runtime/test_registry.py",),
    ),
    "apply what was refused elsewhere": Mutant(
        "crdt_sessions/runtime/sandbox.py",
        "        if self.ahead:\n            self.spoil()",
        "        self.ahead.clear()",
        ("tests/runtime/test_sandbox.py",),
    ),
    "write while the store takes nothing": Mutant(
        "crdt_sessions/runtime/session.py",
        "        if self._health.error is not None:\n            raise self._health.error\n\n    def _about",
        "\n    def _about",
        ("tests/runtime/test_load.py",),
    ),
    "let everybody decide": Mutant(
        "crdt_sessions/sync/engine.py",
        "        writes, violated = self._rules.check(touched, actor)\n",
        "        writes, violated = self._rules.check(touched, None)\n",
        ("tests/sync/test_rules.py",),
    ),
    "believe whose a client is": Mutant(
        "crdt_sessions/sync/writers.py",
        "            if self._enforce:\n                raise ForeignWriter(client=foreign[0])\n",
        "",
        ("tests/sync/test_rules.py",),
    ),
    "let a token choose its algorithm": Mutant(
        "server/crdt_sessions_server/access/jwt.py",
        "        if symmetric and self._secret is not None:\n            return self._secret, [\"HS256\"]\n",
        "        if self._secret is not None:\n            return self._secret, [str(header.get(\"alg\"))]\n",
        ("tests/access/test_tokens.py",),
    ),
    "forget a revocation": Mutant(
        "server/crdt_sessions_server/access/gate.py",
        "        self.on_change(Change(tenant, value) if kind == \"principal\" else Change(tenant, token_id=value))\n",
        "",
        ("tests/access/test_live_access.py",),
    ),
    "allow a route that nobody thought of": Mutant(
        "server/crdt_sessions_server/access/permissions.py",
        '    "sessions.delete_session": Permission.MANAGE,\n',
        '    "sessions.delete_session": Permission.READ,\n',
        ("tests/access/test_matrix.py::test_the_documents_show_the_table",),
    ),
    "one space of names for all tenants": Mutant(
        "crdt_sessions/ids.py",
        'return SessionId(f"{tenant}/{text}" if tenant else text)',
        "return SessionId(text)",
        ("tests/runtime/test_tenants.py",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_the_harness_notices(tmp_path, name):
    mutant = MUTANTS[name]
    if mutant.needs_node and not AVAILABLE:
        pytest.skip("needs Node")
    for folder in ("crdt_sessions", "server"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / mutant.file
    source = path.read_text("utf-8")
    assert source.count(mutant.was) == 1, "the piece to change is not there any more: change the mutant with the code"
    path.write_text(source.replace(mutant.was, mutant.becomes), "utf-8")
    search = f"{tmp_path}{os.pathsep}{tmp_path / 'server'}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests,
         "--override-ini", f"pythonpath={tmp_path} {tmp_path / 'server'} {ROOT}", "--timeout", "120"],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": search, "TREE": str(tmp_path), "HYPOTHESIS_PROFILE": "dev", "KILLS": "5"},
    )  # fmt: skip
    assert done.returncode == 1, f"nobody noticed: {name}\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
    assert "failed" in done.stdout
    assert "ERROR collecting" not in done.stdout, done.stdout[-3000:]
