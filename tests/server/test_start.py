"""What somebody meets who mistypes something, or whose system is not as the service needs it: one plain message.

In this process: what is refused leaves nothing behind, no thread and no open port.
"""

import datetime
import json
import os
import re
import socket
import subprocess
import sys
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, Field, ValidationError
from werkzeug.routing import Rule

from crdt_sessions.storage import MemoryStore
from crdt_sessions_server.arguments import told
from crdt_sessions_server.cli import main
from crdt_sessions_server.explain import explain, near
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import GROUPS, Settings
from tests.processes import PATIENCE, ROOT, command

_FRAMEWORKS = re.compile(
    r"\w*Settings?Source|pydantic|Error\b|Traceback|_TokenEntry|_Entry|ValidationError|https://errors"
)


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """Run the command line, which is to refuse something; return what it said."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, status=2, **environment):
        threads = threading.enumerate()
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            try:
                done = main([str(each) for each in arguments])
            except SystemExit as error:
                done = error.code
        out, err = capsys.readouterr()
        assert done == status, out + err
        assert not out, "a refusal goes to standard error"
        assert not _FRAMEWORKS.search(err), err
        for thread in set(threading.enumerate()) - set(threads):
            thread.join(PATIENCE)
            assert not thread.is_alive(), thread
        return err

    return run


# -- what is mistyped ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("serv", "there is no command serv; did you mean serve?"),
        ("doctro s.db", "did you mean doctor?"),
        ("xyz", "there is no command xyz\n"),
        ("--port 80", "there is no option --port; it follows a command: crdt-sessions serve --port"),
        ("--verison", "there is no option --verison"),
        ("serve --prot 80", "there is no option --prot; did you mean --port?"),
        ("serve --prot=80", "there is no option --prot; did you mean --port?"),
        ("serve --databse x", "did you mean --database?"),
        ("serve --max-frame 5000", "there is no option --max-frame; did you mean --max-frame-bytes?"),
        (
            "serve --jwt-secret X",
            "use CRDT_SESSIONS_JWT_SECRET, jwt_secret in the --config file or --jwt-secret-file",
        ),
        ("serve --jwt-claims X", "use CRDT_SESSIONS_JWT_CLAIMS"),
        ("serve somewhere", "nothing is to stand where 'somewhere' does"),
        ("serve --port", "--port: expected one argument"),
        ("token", "PRINCIPAL"),
        ("token ann --role ownr", "must be owner, editor, viewer, agent or service, not 'ownr'; did you mean owner?"),
        ("token ann --kind humn", "did you mean human?"),
        ("token ann --rol owner", "there is no option --rol; did you mean --role?"),
        ("backup a b --verbose", "there is no option --verbose"),
        ("doctor --salvag new s.db", "did you mean --salvage?"),
        ("bench --rounds 1", "stand behind --"),
    ],
)
def test_a_wrong_command_or_option_is_said_with_the_right_one(said, line, expected):
    text = said(*line.split())
    assert expected in text
    assert "usage:" not in text, "one sentence, not sixty options"
    assert "--help" in text


def test_without_a_command_there_is_help(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "serve" in capsys.readouterr().out


def test_a_settings_file_that_is_not_there_is_an_error(said):
    assert "there is no file missing.toml" in said("serve", "--config", "missing.toml")
    assert re.search(r"there is no folder \S+/no\n", said("serve", "--config", "no/such/s.toml"))
    assert "is a folder" in said("serve", "--config", ".")
    assert "there is no file missing.toml" in said("token", "ann", "--config", "missing.toml")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("prot = 1", ["s.toml: there is no setting prot; did you mean port?"]),
        ("max-frame-bytes = 2048\nhots = ''", ["did you mean max_frame_bytes?", "did you mean host?"]),
        ("port = 'x'\nlog_level = 'inf'", ["s.toml: port must be a whole number, not 'x'", "did you mean info?"]),
        ("port = 70000", ["s.toml: port must be at most 65535, not '70000'"]),
        ("lease_s = 0", ["s.toml: lease_s must be more than 0, not '0'"]),
        ("auto_create = 'perhaps'", ["s.toml: auto_create must be true or false"]),
        ("jwks_url = 'ftp://keys'", ["s.toml: jwks_url must begin with http:// or https://"]),
        ("database = 3", ["s.toml: database must be a text\n"]),
        ("jwt_secret = 3", ["s.toml: jwt_secret must be a text\n"]),
        ("allowed_origins = 'https://a'", ["s.toml: allowed_origins must be a list"]),
        ("allowed_origins = [3]", ["s.toml: allowed_origins.0 must be a text"]),
        ("[jwt_claims]\ntenant = 3", ["s.toml: jwt_claims.tenant must be a text"]),
        ("[jwt_claims]\ntennant = 'org'", ["s.toml: jwt_claims: there is no tennant; did you mean tenant?"]),
        ("[jwt_claims]\nport = 8001", ["s.toml: port stands in the section jwt_claims; it must stand above all"]),
        ("[server]\nport = 8001", ["s.toml: there is no section server; settings stand above all sections"]),
        ("[jwt_claim]\ntenant = 'org'", ["s.toml: there is no section jwt_claim; did you mean jwt_claims?"]),
        ('default_agent = "a\\u0001"', ["s.toml: default_agent must have no control characters\n"]),
        ("port = ", ["s.toml is not TOML: Invalid value (at end of document)"]),
        ("port = '\udcff'", ["s.toml is not UTF-8"]),
    ],
)
def test_each_error_in_a_settings_file_names_file_key_and_what_is_right(said, tmp_path, content, expected):
    (tmp_path / "s.toml").write_bytes(content.encode("utf-8", "surrogateescape"))
    text = said("serve", "--config", "s.toml")
    for each in expected:
        assert each in text
    assert len(text.splitlines()) == len(expected), text


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PRT": "1"}, "there is no setting for CRDT_SESSIONS_PRT; did you mean CRDT_SESSIONS_PORT?"),
        ({"LOG_FORMAT": "xml"}, "CRDT_SESSIONS_LOG_FORMAT must be console or json, not 'xml'"),
        ({"ALLOWED_ORIGINS": "https://a"}, """CRDT_SESSIONS_ALLOWED_ORIGINS must be JSON, such as '["https://app"""),
        ({"JWT_CLAIMS": '{"tenant": 3}'}, "CRDT_SESSIONS_JWT_CLAIMS.tenant must be a text"),
        ({"JWT_CLAIMS": '{"tennant": "org"}'}, "CRDT_SESSIONS_JWT_CLAIMS: there is no tennant; did you mean tenant?"),
        ({"PORT_": "1"}, "did you mean CRDT_SESSIONS_PORT?"),
    ],
)
def test_an_unknown_or_wrong_variable_is_an_error(said, variables, expected):
    assert expected in said("serve", **{f"CRDT_SESSIONS_{name}": value for name, value in variables.items()})


def test_variables_that_others_read_are_left_alone():
    environment = {
        "CRDT_SESSIONS_TOKEN": "of a client",
        "CRDT_SESSIONS_FAILPOINTS": "",
        "CRDT_SESSIONS_SERVICE_HOST": "10.0.0.1",
        "CRDT_SESSIONS_SERVICE_PORT_HTTP": "8000",
        "CRDT_SESSIONS_PORT": "tcp://10.0.0.1:8000",
        "CRDT_SESSIONS_PORT_8000_TCP_ADDR": "10.0.0.1",
        "CRDT_SESSIONS_MAX_SESSIONS": "7",
        "crdt_sessions_trusted_proxies": '["10.0.0.0/8"]',
    }
    settings = Settings.load({}, None, environment)
    assert (settings.port, settings.max_sessions, settings.trusted_proxies) == (8000, 7, ("10.0.0.0/8",))


def test_each_wrong_option_is_named_as_it_was_given(said):
    text = said("serve", "--port", "x", "--lease-s", "0", "--authorship", "enforced", CRDT_SESSIONS_PORT="1")
    assert "--port must be a whole number, not 'x'" in text
    assert "--lease-s must be more than 0" in text
    assert "--authorship must be enforce or record, not 'enforced'; did you mean enforce?" in text


@pytest.mark.parametrize("scheme", ["mysql", "sqlite", "postgresql+asyncpg"])
def test_an_address_of_a_store_that_there_is_not_is_no_name_of_a_file(said, scheme):
    text = said("serve", "--database", f"{scheme}:///sessions.db")
    assert "a SQLite file, such as sessions.db, or postgresql://..." in text
    assert f"there is no store for {scheme}\n" in text


TOKEN, OTHER = "a-secret-token-of-somebody", "another-secret-token"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({TOKEN: {"principal": "a", "rloe": "x"}}, "t.json: entry 1: there is no rloe; did you mean role?"),
        ({TOKEN: {"principal": "a"}, OTHER: {"principal": ""}}, "t.json: entry 2: principal must not be empty"),
        (
            {TOKEN: {"principal": "a", "role": "ownr"}},
            "entry 1: role must be owner, editor, viewer, agent or service",
        ),
        ({TOKEN: {"principal": "a", "kind": "humn"}}, "did you mean human?"),
        ({TOKEN: {"principal": "a", "can_writ": False}}, "did you mean canWrite?"),
        ({TOKEN: {"principal": "a", "tenant": "-"}}, "entry 1: tenant must be 1 to 64 characters"),
        ({TOKEN: {"name": "a"}}, "entry 1: principal is missing"),
        ({TOKEN: {"principal": "a", "sessions": "*"}}, "entry 1: sessions must be a list"),
        ({TOKEN: "ann"}, "entry 1 must be a table"),
        ([TOKEN], "t.json must be a table"),
        (f'{{"{TOKEN}": {{"principal": "ann",}}}}', "t.json is not JSON: "),
    ],
)
def test_errors_in_a_tokens_file_name_the_entry_and_the_key_and_no_token(said, tmp_path, content, expected):
    (tmp_path / "t.json").write_text(content if isinstance(content, str) else json.dumps(content))
    text = said("serve", "--port", "0", "--tokens-file", "t.json")
    assert "tokens file t.json" in text
    assert expected in text
    assert TOKEN not in text
    assert OTHER not in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([{"name": "a", "url": "x"}], "w.json: entry 1: url must begin with http:// or https://"),
        ([{"name": "a", "url": "http://x", "secrt": "y"}], "entry 1: there is no secrt; did you mean secret?"),
        (
            [{"name": "a", "url": "http://x..y", "secret": "whsec_" + "a" * 32}],
            "w.json: webhook 'a': no host can be looked up that is called as in its URL",
        ),
        ([{"name": "a", "url": "http://x", "secret": "y"}], "w.json: webhook 'a': the secret is 'whsec_' and"),
        ({}, "w.json must be a list"),
        ("[", "w.json is not JSON"),
    ],
)
def test_errors_in_a_webhooks_file_name_the_entry_and_the_key(said, tmp_path, content, expected):
    (tmp_path / "w.json").write_text(content if isinstance(content, str) else json.dumps(content))
    assert expected in said("serve", "--webhooks-file", "w.json", "--port", "0")


def test_no_kind_of_error_is_told_in_the_words_of_the_library():
    """What is not in our table has a sentence of ours, too, and a union is told once."""

    class Model(BaseModel):
        text: bytes = Field(min_length=3)
        either: int | list[int]

    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"text": "x", "either": "secret"})
    sentences = explain(caught.value, lambda path: ".".join(map(str, path[:1])), ())
    assert sentences == ["text cannot be what it is", "either must be a whole number, not 'secret'"]


def test_a_name_like_no_other_gets_no_suggestion():
    assert near("zzz", ["port", "host"]) == ""
    assert near("PROT", ["port", "host"]) == "; did you mean port?"
    assert near("", ["port"]) == ""


# -- what the system is not ready for ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "what"),
    [
        ("--tokens-file", "tokens file"),
        ("--jwt-secret-file", "secret file"),
        ("--jwks-file", "keys file"),
        ("--webhooks-file", "webhooks file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_why(said, tmp_path, monkeypatch, flag, what):
    assert f"{what}: there is no file none" in said("serve", "--port", "0", flag, "none")
    assert f"{what}: there is no folder" in said("serve", "--port", "0", flag, "no/where")
    assert f"{what}: " in said("serve", "--port", "0", flag, "nu\0l")
    (tmp_path / "closed").touch()

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", denied)
    assert f"{what}: closed may not be read" in said("serve", "--port", "0", flag, "closed")


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """A certificate, its key, that key with a passphrase, and another key."""
    folder = tmp_path_factory.mktemp("pem")
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(begin).not_valid_after(begin + datetime.timedelta(days=9999))
        .sign(key, hashes.SHA256())
    )  # fmt: skip

    def write(name, key, how):
        form = serialization.PrivateFormat.PKCS8
        (folder / name).write_bytes(key.private_bytes(serialization.Encoding.PEM, form, how))

    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    write("key.pem", key, serialization.NoEncryption())
    write("other.pem", other, serialization.NoEncryption())
    write("locked.pem", key, serialization.BestAvailableEncryption(b"passphrase"))
    (folder / "text.pem").write_text("no key at all")
    return folder


@pytest.mark.parametrize(
    ("certificate", "key", "expected"),
    [
        ("none.pem", "key.pem", "TLS certificate: there is no file"),
        ("cert.pem", "none.pem", "TLS key: there is no file"),
        ("text.pem", "key.pem", "not in PEM form"),
        ("cert.pem", "text.pem", "not in PEM form"),
        ("cert.pem", "other.pem", "the key is not the certificate's"),
        ("cert.pem", "locked.pem", "is encrypted with a passphrase"),
    ],
)
def test_tls_files_that_cannot_be_used_are_said_before_anything_begins(said, pem, certificate, key, expected):
    """One with a passphrase would have the service wait at the terminal for ever."""
    flags = ("--tls-certificate", pem / certificate, "--tls-key", pem / key)
    assert expected in said("serve", "--port", "0", "--database", "s.db", *flags)
    assert not os.path.exists("s.db")


def test_half_of_tls_is_refused(said, pem):
    assert "--tls-key" in said("serve", "--port", "0", "--tls-certificate", pem / "cert.pem")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{}", "is no key set"),
        ('{"keys": []}', "keys file k.json"),
        ('{"keys": [{"kty": "oct"}]}', "keys file k.json"),
        ("keys", "is not JSON"),
    ],
)
def test_keys_that_nobody_can_use_are_said_at_start_and_not_at_the_first_token(said, tmp_path, content, expected):
    (tmp_path / "k.json").write_text(content)
    assert expected in said("serve", "--port", "0", "--jwks-file", "k.json")


def test_wrong_networks_and_short_secrets_are_said(said, tmp_path):
    (tmp_path / "secret").write_text("short")
    assert "needs 32" in said("serve", "--port", "0", "--jwt-secret-file", "secret")
    assert "trusted_proxies: " in said("serve", "--port", "0", "--trusted-proxies", "10.0.0.0/99")


def test_an_address_that_cannot_be_listened_on_is_said(said, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = said("serve", "--database", "s.db", "--port", port)
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in text
        assert "another --port" in text
    (tmp_path / "secret").write_text("x" * 40)
    text = said("serve", "--port", "0", "--host", "192.0.2.1", "--jwt-secret-file", "secret")
    assert "cannot listen on 192.0.2.1:0: " in text
    assert "another --host" in text


def test_a_database_that_cannot_be_used_gives_the_port_back(said, tmp_path):
    (tmp_path / "text").write_text("no database " * 100)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    flags = ("serve", "--port", port, "--database")
    assert "no SQLite database" in said(*flags, "text")
    assert "there is no folder" in said(*flags, "no/s.db")
    assert "is a folder" in said(*flags, ".")
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_the_process_ends_on_a_file_that_is_no_database(tmp_path):
    """As a process, since a thread that is left over holds it after everything has been said."""
    (tmp_path / "text").write_text("no database " * 100)
    done = command("serve", "--port", "0", "--database", tmp_path / "text")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_whoever_interrupts_a_command_is_shown_no_traceback(monkeypatch):
    from crdt_sessions_server import __main__ as entry

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("crdt_sessions_server.cli.main", interrupted)
    assert entry.main() == 130


# -- what it takes ------------------------------------------------------------------------------------------------------

_ON_DEMAND = (
    "httpx", "jwt", "cryptography", "mcp", "asyncpg", "prometheus_client", "jsonschema", "markdown_it", "openai", "ag_ui",
    "structlog", "rich", "quart_schema", "attr",
    "websockets.asyncio", "crdt_sessions.client", "crdt_sessions.bridges", "crdt_sessions.testing",
    "crdt_sessions_server.cluster.cluster", "crdt_sessions_server.migration", "crdt_sessions_server.ops.doctor",
)  # fmt: skip


_IMPORTS = """
import sys, crdt_sessions_server.cli, crdt_sessions_server.process
print(*sys.modules)
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_service_imports_nothing_that_most_services_never_use():
    done = subprocess.run([sys.executable, "-c", _IMPORTS], cwd=ROOT, capture_output=True, text=True, check=True)
    modules, kilobytes = done.stdout.splitlines()
    found = [name for name in modules.split() if any(f"{name}.".startswith(f"{each}.") for each in _ON_DEMAND)]
    assert found == []
    assert int(kilobytes) < 85_000, "70,000 with bytecode at hand, which costs nothing to read"


def test_no_route_compiles_a_builder_of_urls_that_nobody_asks_for(monkeypatch):
    compiled, compile_builder = [], Rule._compile_builder
    monkeypatch.setattr(
        Rule, "_compile_builder", lambda rule, *args: compiled.append(rule) or compile_builder(rule, *args)
    )
    urls = Service(Settings(), store=MemoryStore()).app.url_map.bind("here")
    assert compiled == []
    assert urls.build("sessions.get_session", {"name": "a/b"}) == "/v1/sessions/a%2Fb"
    assert len(compiled) == 1


# -- what it says of itself ---------------------------------------------------------------------------------------------


def test_help_is_grouped_and_each_option_says_its_choices_and_its_default(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for heading in GROUPS.values():
        assert f"{heading}:" in text
    for name, field in Settings.model_fields.items():
        if name not in ("jwt_secret", "jwt_claims"):
            assert f"--{name.replace('_', '-')}" in text
            assert told(name, field) in text.replace("- ", "-") or told(name, field) in text, name
    assert "{debug,info,warning,error}" in text
    assert "It is queue, interrupt, reject or parallel. The default is queue." in text
    assert "16777216 (16 MiB)" in text
    assert "PROXIE " not in text


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_is_told_in_whole_sentences(name):
    text = told(name, Settings.model_fields[name])
    assert re.fullmatch(r"([A-Z].*?[.])( [A-Z].*?[.])+", text), text
    assert "default" in text


def test_no_parser_of_ours_takes_abbreviations():
    """``--jwt-secret X`` was taken for ``--jwt-secret-file``, and a secret for the name of a file."""
    files = [*ROOT.glob("examples/**/*.py"), *ROOT.glob("scripts/*.py"), *ROOT.glob("tests/*/*.py")]
    for file in [*files, *ROOT.glob("server/**/*.py")]:
        if "node_modules" in file.parts:
            continue
        for call in re.findall(r"argparse\.ArgumentParser\((.*?)\)\n", file.read_text("utf-8"), re.S):
            assert "allow_abbrev=False" in call, file
