"""What keeps the house in order: contracts, generated files, public names, docs and examples that are true."""

import ast
import importlib
import pkgutil
import re
import runpy
import subprocess
import sys
import zipfile
from types import SimpleNamespace
from typing import get_args

import pytest

import crdt_sessions
import crdt_sessions_server
from crdt_sessions import errors
from crdt_sessions.runtime import feed
from crdt_sessions.wire import Frame
from crdt_sessions.wire.closing import CLOSE_CODES
from crdt_sessions_server.http.problems import OF_ERRORS
from crdt_sessions_server.settings import Settings
from crdt_sessions_server.sources import ENV_PREFIX
from scripts import reference
from scripts.schemas import FOLDER, generate
from tests.interop.node import JS, needs_node
from tests.processes import PATIENCE, ROOT, Process, Server, python

DOCS = ROOT / "docs"


def modules():
    for package in (crdt_sessions, crdt_sessions_server):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                yield module.name


def test_generated_schemas_are_fresh():
    written = {path.name: path.read_text("utf-8") for path in FOLDER.iterdir()}
    assert written == generate(), "run make schemas"


def test_the_tables_of_the_reference_are_fresh():
    for name, content in reference.generate().items():
        assert (DOCS / "reference" / name).read_text("utf-8") == content, "run make schemas"


@pytest.mark.interop
@needs_node
def test_golden_vectors_are_what_real_yjs_writes(tmp_path):
    subprocess.run(["node", JS / "vectors.mjs", tmp_path], check=True, timeout=PATIENCE)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (ROOT / "schemas/vectors" / path.name).read_bytes(), "run make schemas"


@pytest.mark.parametrize("name", ["crdt_sessions", *[n for n in modules() if n.count(".") == 1]])
def test_public_names_are_sorted_and_exist(name):
    module = importlib.import_module(name)
    public = getattr(module, "__all__", None)
    if public is not None:
        assert len(set(public)) == len(public)
        for each in public:
            assert hasattr(module, each)


def test_the_light_core_needs_no_server():
    """Importing the library pulls in nothing of the extra: an agent installs little."""
    code = (
        "import sys, crdt_sessions; "
        "print([m for m in ('quart','hypercorn','hypothesis','pytest') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_wheel_is_whole_and_its_core_runs_without_the_extra(tmp_path):
    """Built and unpacked: the page is in it, the library imports, and the command says what to install."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT],
        check=True, timeout=120,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    for name in ("crdt_sessions/py.typed", "crdt_sessions_server/web/app.js", "crdt_sessions_server/py.typed"):
        assert name in names
    assert not any(name.startswith(("tests", "examples", "server/")) for name in names)
    code = (
        f"import sys; sys.path.insert(0, r'{tmp_path / 'site'}'); sys.modules['quart'] = None; sys.argv[1:] = ['serve']\n"
        "import crdt_sessions; assert crdt_sessions.__file__.startswith(sys.path[0])\n"
        "from crdt_sessions_server.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, "crdt-sessions[server]" in done.stderr) == (2, True), done.stderr


def _error_classes(kind=errors.CrdtSessionsError):
    for each in kind.__subclasses__():
        yield each
        yield from _error_classes(each)


def test_every_error_stands_in_the_tree_and_has_a_place_in_both_tables():
    stopped = {errors.RunFailed, errors.ToolRefused, errors.RunStopped, errors.RunCancelled, errors.RunSuspended}
    client_only = {kind for kind in _error_classes() if re.search(rf"─ {kind.__name__} +\(client\)", errors.__doc__)}
    client_only |= {each for each in _error_classes() if each.__name__.startswith("_")} | {
        errors.StreamError,
        *stopped,
    }
    http_only = {errors.SessionExists, errors.BadDocument, errors.BadValue, errors.NotFound}
    http_only |= {
        errors.RunNotClaimable,
        errors.RunsActive,
        errors.WrongOffset,
        errors.AlreadyDecided,
        errors.PieceSettled,
    }
    http_only |= {errors.NothingToDecide, errors.NotAnAnswer, errors.AgentAway, errors.EmptyMessage}
    http_only |= {errors.AllowanceSpent, errors.CallNotGiven, errors.NodeRefused}
    http_only |= set(_error_classes(errors.StreamError))
    for kind in set(_error_classes()) - client_only:
        assert kind.__name__ in errors.__doc__
        assert any(parent in OF_ERRORS for parent in kind.__mro__), kind
        if kind not in http_only:
            assert any(parent in CLOSE_CODES for parent in kind.__mro__), kind


def test_the_documents_name_every_setting_code_frame_and_event():
    protocol = (DOCS / "protocol.md").read_text("utf-8")
    for code in {*CLOSE_CODES.values(), 1000, 1011}:
        assert re.search(rf"\b{code}\b", protocol), f"close code {code} is not in protocol.md"
    for frame in get_args(Frame):
        assert frame.__name__.removesuffix("Frame") in protocol
    for kind in re.findall(r"^``([a-z-]+)``", feed.__doc__, re.M):
        assert f"`{kind}`" in protocol, f"event {kind} is not in protocol.md"
    settings = (DOCS / "reference/settings.md").read_text("utf-8")
    for name, field in Settings.model_fields.items():
        assert f"`{name}`" in settings, f"setting {name} is not in settings.md"
        assert field.description in settings, f"the description of {name} differs in settings.md"
    assert ENV_PREFIX in settings


def test_links_between_documents_lead_somewhere():
    for page in [ROOT / "README.md", *DOCS.rglob("*.md"), ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_decisions_that_code_refers_to_exist():
    for package in ("crdt_sessions", "server", "pyproject.toml"):
        paths = [ROOT / package] if package.endswith("toml") else (ROOT / package).rglob("*.py")
        for path in paths:
            for number in re.findall(r"docs/decisions/(\d{4})", path.read_text("utf-8")):
                assert list((DOCS / "decisions").glob(f"{number}-*.md")), f"{path} refers to decision {number}"


def test_the_readmes_agent_is_the_example():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert (ROOT / "examples/first_agent.py").read_text("utf-8").split('"""\n', 1)[1].strip() in readme


def test_unit_tests_do_not_sleep():
    """Time is an argument: only tests of real processes may wait."""
    allowed = {"tests/processes.py"}
    for folder in ("wire", "model", "sync", "storage", "runtime", "convergence", "house"):
        for path in (ROOT / "tests" / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
                if called.endswith("sleep") and called not in {"super().sleep", "clock.sleep"}:  # of a made up clock
                    argument = ast.unparse(node.args[0]) if node.args else "0"
                    assert argument == "0" or str(path.relative_to(ROOT)) in allowed, f"{path}:{node.lineno} sleeps"


def test_nothing_tells_of_this_machine():
    """No machine paths and no registry hosts in what is committed."""
    files = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=True).stdout.split(
        "\n"
    )
    hosts = "registry.npmjs|pypi\\.org|pythonhosted|deb\\.debian"
    for name in filter(None, files):
        path = ROOT / name
        if path.is_file() and path.suffix in {".py", ".md", ".toml", ".json", ".lock", ".mjs", ".js", ".sh", ""}:
            if "recordings" in name or name.endswith("app.js"):
                continue
            found = re.search(rf"/work/main|/root/|{hosts}", path.read_text("utf-8"))
            assert found is None or name == "tests/house/test_house.py", f"{name}: {found.group()}"


# -- examples ----------------------------------------------------------------------------------------------------


@pytest.mark.crash
def test_the_first_agent_and_the_terminal_peer_work(tmp_path):
    server = Server(tmp_path / "s.db")
    source = (ROOT / "examples/first_agent.py").read_text("utf-8").replace("http://127.0.0.1:8000", server.url)
    (tmp_path / "agent.py").write_text(source, "utf-8")
    agent = Process(sys.executable, tmp_path / "agent.py", fork=True)
    try:
        done = python(
            ROOT / "examples/terminal_peer.py", "--url", server.url, "--session", "trip-to-oslo",
            "--name", "Ann", "--post", "hei på deg",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "You said: hei på deg" in done.stdout
        assert "is here" not in done.stdout  # it would stand in the middle of the answer
        agent.wait_for(f"agent parrot: connected to {server.url} as anybody, for it asks for no token; takes runs")
        agent.wait_for(r"agent parrot: run-\w+ in session trip-to-oslo completed after")
    finally:
        agent.close()
        server.close()


@pytest.mark.crash
def test_a_terminal_peer_is_told_why_it_is_refused(tmp_path):
    server = Server(tmp_path / "s.db")
    try:
        with server.http() as http:
            http.post("/v1/sessions", json={"id": "gone"})
            http.delete("/v1/sessions/gone")
            said = "terminal_peer.py: closed with 4404: session 'gone' was deleted. Make it with POST /v1/sessions"
            done = python(ROOT / "examples/terminal_peer.py", "--url", server.url, "--session", "gone", "--post", "x")
            assert (done.returncode, done.stderr.startswith(said)) == (1, True), done.stderr
            peer = Process(
                sys.executable, ROOT / "examples/terminal_peer.py", "--url", server.url, "--session", "here",
                "--name", "Ann", stdin=True, fork=True,
            )  # fmt: skip
            peer.wait_for(f"connected to {server.url}, session here, as Ann")
            http.delete("/v1/sessions/here")  # while it waits for somebody to type
            assert peer.child.wait(PATIENCE) == 1
            peer.wait_for("terminal_peer.py: closed with 4404: session 'here' was deleted")
            peer.close()
        for url, why in (("127.0.0.1:1", "it has no scheme"), (f"{server.url}/v1", "leave /v1 away")):
            done = python(ROOT / "examples/terminal_peer.py", "--url", url, "--post", "x")
            assert (done.returncode, why in done.stderr, "Traceback" in done.stderr) == (1, True, False), done.stderr
    finally:
        server.close()


def test_what_is_said_in_between_tears_no_word_on_the_terminal(capsys):
    screen = runpy.run_path(str(ROOT / "examples/terminal_peer.py"))["Screen"]()
    answer = SimpleNamespace(id="m", text="You said: he", author=SimpleNamespace(id="p", name="parrot"))
    screen.show(answer)
    screen.note("→ Ann is here")
    answer.text = "You said: hello"
    screen.show(answer)
    assert capsys.readouterr().out.endswith("Ann is here\x1b[0m\n\n\x1b[1mparrot\x1b[0m You said: hello")
