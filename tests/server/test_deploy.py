"""The files in ``server/deploy``: what they say to the service is something it knows, and tools accept them."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from crdt_sessions_server.arguments import parse
from crdt_sessions_server.service import create_app
from crdt_sessions_server.settings import Settings
from crdt_sessions_server.settings_check import check_settings
from tests.processes import ROOT

DEPLOY = ROOT / "server/deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
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
