"""The files in ``server/deploy``: what they say to the service is something it knows, and tools accept them."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import httpx
import pytest
import yaml

from crdt_sessions_server.arguments import parse
from crdt_sessions_server.service import create_app
from crdt_sessions_server.settings import Settings
from crdt_sessions_server.settings_check import check_settings
from tests.postgres import VERSIONS, needs_postgres, shared_server
from tests.processes import PATIENCE, ROOT, Process, free_port

DEPLOY = ROOT / "server/deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COPIED = ("pyproject.toml", "README.md", "LICENSE", "crdt_sessions", "server/crdt_sessions_server", "schemas/vectors")
"""What is copied to build the image, beside the pinned versions."""
IMAGE_BYTES = 140 << 20
"""Of what comes to Python's own image."""
PINNED = re.compile(r"^([\w.-]+)==(\S+)", re.M)


def _compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def _kubernetes():
    return {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes/sessions.yaml").read_text())}


def _pod():
    return _kubernetes()["Deployment"]["spec"]["template"]["spec"]


def _unit(path):
    lines = [line for line in path.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return [tuple(line.split("=", 1)) for line in lines]


def commands():
    """Yield where it stands, the arguments of ``crdt-sessions``, and the variables of its environment."""
    service = _compose()["services"]["sessions"]
    (line,) = service["command"]
    words = shlex.split(line.replace("$$(hostname -i)", "10.0.0.7").removeprefix("exec crdt-sessions "))
    yield "compose", words, service["environment"]
    (container,) = _pod()["containers"]
    words = [each.replace("$(POD_IP)", "10.0.0.7") for each in container["args"]]
    yield "kubernetes", words, {each["name"]: "x" for each in container["env"]}
    for path in UNITS:
        unit = _unit(path)
        program, *words = shlex.split(dict(unit)["ExecStart"])
        assert program.endswith("/crdt-sessions")
        variables = dict(each.split("=", 1) for key, value in unit if key == "Environment" for each in [value])
        yield path.name, words, variables
    arguments = re.search(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.M)
    yield "Dockerfile", yaml.safe_load(arguments.group(1)), {}


@pytest.mark.parametrize(
    ("words", "variables"), [each[1:] for each in commands()], ids=[each[0] for each in commands()]
)
def test_what_the_service_is_told_is_something_it_knows_and_agrees_with_itself(words, variables, tmp_path):
    """Each option and variable exists, and the service would start with them: but for the secrets, which are made."""
    parsed = parse(words)
    secret = tmp_path / "secret"
    secret.write_text("x" * 64)
    flags = {
        name: value for name, value in vars(parsed).items() if name in Settings.model_fields and value is not None
    }
    flags |= {name: secret for name in flags if name.endswith("_secret_file")}
    environment = {key: str(secret) if key.endswith("_SECRET_FILE") else value for key, value in variables.items()}
    file = None if parsed.config is None else DEPLOY / "systemd" / Path(parsed.config).name
    settings = Settings.load(flags, file, environment)
    check_settings(settings)
    assert (
        settings.loopback_only
        or settings.knows_tokens
        or words == ["serve", "--host", "0.0.0.0", "--log-format", "json"]
    )


def test_the_settings_file_is_what_it_looks_like():
    assert set(tomllib.loads((DEPLOY / "systemd/settings.toml").read_text())) <= set(Settings.model_fields)


def test_what_listens_is_what_is_asked():
    compose, pod = _compose(), _pod()
    balancer = (DEPLOY / "haproxy.cfg").read_text()
    assert re.search(r"server-template node \d+ sessions:8000\b", balancer)
    assert "./haproxy.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro" in compose["services"]["balancer"]["volumes"]
    (container,) = pod["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert f"--port={ports['http']}" in container["args"]
    assert f"--cluster-listen=$(POD_IP):{ports['cluster']}" in container["args"]
    rules = {rule.rule for rule in create_app(Settings()).url_map.iter_rules()}
    asked = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    asked |= set(re.findall(r"http-check send meth GET uri (\S+)", balancer))
    assert asked == {"/healthz", "/readyz"} <= rules


def test_the_balancer_hashes_where_the_sessions_name_stands():
    """Whatever route names a session has it there; WebSockets, too."""
    assert "balance hash path,field(4,/)" in (DEPLOY / "haproxy.cfg").read_text()
    rules = [rule.rule for rule in create_app(Settings()).url_map.iter_rules()]
    named = [rule for rule in rules if re.match(r"/v1/(sessions|sync)/", rule)]
    assert len(named) > 20
    assert {rule.split("/")[3] for rule in named if "<" in rule.split("/")[3]} <= {"<name>", "<string:name>"}, named


def test_containers_may_do_no_more_than_they_need():
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    (user,) = re.findall(r"^USER (\d+):\d+$", dockerfile, re.M)
    pod, service = _pod(), _compose()["services"]["sessions"]
    (container,) = pod["containers"]
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsNonRoot"]) == (int(user), True)
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    for grace in (pod["terminationGracePeriodSeconds"], int(service["stop_grace_period"].removesuffix("s"))):
        assert grace > Settings().shutdown_s + 10, "it is killed before it has stopped in order"
    assert _compose()["services"]["sessions"]["deploy"]["replicas"] == _kubernetes()["Deployment"]["spec"]["replicas"]
    assert dict(_unit(DEPLOY / "systemd/crdt-sessions-workers.service"))["ExecReload"] == "kill -HUP $MAINPID"


def test_the_image_has_what_the_tests_have():
    """Built from the pinned versions that everything else is tried with, PostgreSQL's driver among them."""
    image = dict(PINNED.findall((DEPLOY / "requirements.lock").read_text()))
    tested = dict(PINNED.findall((ROOT / "requirements-dev.lock").read_text()))
    assert image.items() <= tested.items()
    assert {"asyncpg", "hypercorn", "pycrdt", "hatchling"} <= set(image)
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.M)
    assert all((ROOT / name).exists() for line in copied for name in line.split())


def test_nothing_else_is_in_the_image():
    """No tests, no history, no key: what is copied is named here and let through there, and there are no arguments."""
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    steps = re.findall(r"^([A-Z]+) (.*)$", dockerfile, re.M)
    copied = {source for step, words in steps if step == "COPY" for source in words.split()[:-1]}
    ours = set(COPIED)
    assert copied == {*ours, "server/deploy/requirements.lock", "--from=build", "/app"}
    let_through = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().split() if line[0] == "!"]
    assert {each.partition("/")[0] for each in ours} == set(let_through)
    final = dockerfile.rpartition("\nFROM ")[2]
    assert re.findall(r"^COPY .*$", final, re.M) == ["COPY --from=build /app /app"]
    assert not {"ADD", "ARG", "VOLUME"} & {step for step, _ in steps}
    assert re.findall(r"^ENV (.*)$", dockerfile, re.M) == [
        "PATH=/app/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1"
    ]
    tracked = subprocess.run(
        ["git", "ls-files", "-z", *sorted(ours)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    secret = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n\w|postgres(?:ql)?://\w+:\w+@(?!\{)")
    files = [
        ROOT / name for name in tracked.stdout.split("\0") if name.endswith((".py", ".toml", ".md", ".js", ".html"))
    ]
    assert not [file for file in files if secret.search(file.read_text())]


AS_IN_A_CONTAINER = """
mount --make-rprivate / && mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && mount -o remount,bind,ro / || exit 9
exec setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --bounding-set=-all "${@:2}"
"""


@pytest.mark.nightly
@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("setpriv") is None, reason="takes root and setpriv"
)
@needs_postgres
def test_what_the_image_is_built_of_serves_as_nobody_where_nothing_can_be_written(tmp_path):
    """The steps of the Dockerfile with the Python that is here; then a process as a container would have it."""
    folder = Path(tempfile.mkdtemp(prefix="image-"))  # others must get there
    folder.chmod(0o755)
    app, src = folder / "app", folder / "src"
    src.mkdir()
    for name in COPIED:
        (src / name).parent.mkdir(exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, src / name)
    pip = [sys.executable, "-m", "pip", "--python", app / "bin/python", "install", "--no-compile", "--quiet"]
    try:
        for command in (
            [sys.executable, "-m", "venv", "--without-pip", app],
            [*pip, "--require-hashes", "-r", DEPLOY / "requirements.lock"],
            [*pip, "--no-deps", "--no-build-isolation", src],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
            assert done.returncode == 0, done.stderr
        shutil.rmtree(src)
        size = sum(each.lstat().st_size for each in app.rglob("*"))
        assert size < IMAGE_BYTES, f"{size >> 20} MB without Python"
        compiled = set(app.rglob("*.pyc"))
        name = f"image_{os.getpid()}"
        server = shared_server(VERSIONS[-1])
        server.sql(f"CREATE DATABASE {name}")
        port = free_port()
        serving = Process(
            "unshare", "--mount", "bash", "-c", AS_IN_A_CONTAINER, "bash", app, app / "bin/crdt-sessions", "serve",
            "--database", server.url(name), "--port", port,
            env={"PYTHONDONTWRITEBYTECODE": "1", "HOME": "/", "PYTHONPATH": ""}, folder="/",
        )  # fmt: skip
        try:
            url = serving.wait_for(r"on (https?://\S+)").group(1)
            with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE) as http:
                assert http.get("/readyz").status_code == 200
                assert http.post("/v1/sessions", json={"id": "room"}).status_code == 201
                assert http.post("/v1/sessions/room/messages", json={"text": "hello"}).status_code == 201
            status = Path(f"/proc/{serving.child.pid}/status").read_text()
            assert re.search(r"^Uid:\t10001\t10001\t10001", status, re.M)
            assert re.search(r"^CapEff:\t0+$", status, re.M)
            assert serving.terminate() == 0
        finally:
            serving.close()
        assert set(app.rglob("*.pyc")) == compiled, "it wrote into the image"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("haproxy", "-c", "-f", DEPLOY / "haproxy.cfg"), id="haproxy"),
        pytest.param(("kubectl", "kustomize", DEPLOY / "kubernetes"), id="kubectl"),
        pytest.param(("systemd-analyze", "verify", *UNITS), id="systemd"),
    ],
)
def test_tools_accept_them(command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if "is not executable: No such file" not in line]
    assert (told if command[0] == "systemd-analyze" else done.returncode) in ([], 0), done.stderr
