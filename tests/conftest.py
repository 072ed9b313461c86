"""What all tests share: Hypothesis' profile, the order of files, and the processes of a test of its own."""

import datetime
import functools
import gc
import os
import ssl
import sys
import types
from collections import Counter

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, Phase, settings

from crdt_sessions_server.arguments import leaf
from tests.interop.node import NodePeers
from tests.processes import Process, Server, command, end_who_is_left
from tests.profiles import PROFILE, parted, sample

# Images for containers set this; here it would compile the service again for each of hundreds of processes.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
gc.disable()  # while tests are collected

_LEFT = pytest.StashKey[int]()
"""How many tests were left to a later profile."""
_GIVEN = {"server", "own_server", "service", "target", "js"}
"""Fixtures that are processes."""
_QUIET = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)

settings.register_profile(
    PROFILE,
    max_examples=sample("examples"),
    stateful_step_count=sample("steps"),
    derandomize=PROFILE == "ci",
    deadline=None,
    phases=[phase for phase in Phase if phase is not Phase.shrink or sample("shrinking")],
    suppress_health_check=_QUIET,
)
settings.load_profile(PROFILE)


def pytest_report_header():
    """Say which leaf is tested."""
    return f"crdt-sessions: {leaf()}"


@functools.cache
def _starts_processes(module):
    """Whether a file of tests imports what starts processes: a kind of them, or a function that names one."""
    return any(_is_process(each) or _names_process(each) for each in vars(module).values())


def _is_process(each):
    return each is command or (isinstance(each, type) and issubclass(each, Process))


def _names_process(each):
    if not isinstance(each, types.FunctionType) or not each.__module__.startswith("tests."):
        return False
    return any(_is_process(each.__globals__.get(name)) for name in each.__code__.co_names)


def pytest_itemcollected(item):
    """Mark what starts processes, as far as what a test is given and what its file imports tell."""
    if _starts_processes(item.module) or not _GIVEN.isdisjoint(item.fixturenames):
        item.add_marker("processes")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Leave to a later profile what is its, and have files with slow tests first.

    So no worker is left alone with one of them at the end.
    """
    twice = [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]
    if twice:
        raise pytest.UsageError(f"workers would run one of several tests of the same name only: {twice}")
    if not any("::" in each for each in config.args):  # who names a test means it
        items[:], left = parted(items)
        config.stash[_LEFT] = len(left)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_sessionfinish(session):
    """Tell the process that started this worker how many tests were left to a later profile."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = session.config.stash.get(_LEFT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Hear it. All workers have left the same."""
    node.config.stash[_LEFT] = getattr(node, "workeroutput", {}).get("left", 0)


def pytest_terminal_summary(terminalreporter, config):
    """Say how many, so that nothing is left out in silence."""
    if left := config.stash.get(_LEFT, 0):
        terminalreporter.write_line(
            f"{left} more tests are left to `make nightly` and `make weekly` (tests/profiles.py)"
        )


def pytest_collection_finish():
    """Look at the modules and the thousands of tests no more whenever garbage is collected: they stay to the end."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def trust_store():
    """Read the world's certificates once. httpx reads them for each client, which takes 20 ms, thousands of times."""
    make = ssl.create_default_context
    world = {"cafile": os.environ.get("SSL_CERT_FILE") or certifi.where()}
    once = functools.cache(lambda: make(**world))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ssl,
            "create_default_context",
            lambda *args, **kw: once() if not args and kw == world else make(*args, **kw),
        )
        yield


@pytest.fixture(scope="session", autouse=True)
def nobody_left():
    """See to it that no test leaves a process behind, which would slow down all that comes."""
    yield
    assert end_who_is_left() == []


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The service for the tests of a module, which have a :func:`room` each; to start it takes most of a second."""
    process = Server(tmp_path_factory.mktemp("server") / "sessions.db")
    yield process
    process.close()


@pytest.fixture
def own_server(tmp_path):
    """The service for a test that kills it, or that is the only one with an agent there."""
    process = Server(tmp_path / "sessions.db")
    yield process
    process.close()


@pytest.fixture
def room(request):
    """The name of a session for each test of those that share a service."""
    return "".join(char if char.isalnum() else "-" for char in request.node.name)[-100:].strip("-")


@pytest.fixture(scope="module")
def node():
    """A process of Node, which takes a third of a second to start."""
    peers = NodePeers()
    yield peers
    peers.close()


@pytest.fixture
def js(node):
    """Real JavaScript clients."""
    yield node
    node("reset")


@pytest.fixture
def certificate(tmp_path):
    """A certificate for localhost that nobody vouches for, and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (tmp_path / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return tmp_path / "cert.pem", tmp_path / "key.pem"
