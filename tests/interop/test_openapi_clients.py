"""The OpenAPI document as others read it: a linter has nothing to say, and a client made of it compiles and works."""

import json
import shutil
import subprocess

import pytest

from tests.interop.node import JS, needs_node
from tests.processes import PATIENCE, PROBLEM, ROOT, Server

pytestmark = [needs_node, pytest.mark.interop]

DOCUMENT = ROOT / "schemas/v1/openapi.json"


def ran(*command, cwd=JS):
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=PATIENCE * 4, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.nightly
def test_a_linter_has_nothing_to_say_of_the_document(tmp_path):
    assert ran("node", "lint.mjs", DOCUMENT) == (0, "")
    broken = json.loads(DOCUMENT.read_text("utf-8"))
    broken["paths"]["/v1/me"]["get"]["operationId"] = "listSessions"
    (tmp_path / "broken.json").write_text(json.dumps(broken), "utf-8")
    code, said = ran("node", "lint.mjs", tmp_path / "broken.json")
    assert code == 1
    assert "operation-operationId-unique" in said


@pytest.fixture(scope="module")
def application(tmp_path_factory):
    """A TypeScript application, compiled with types that are made of the document."""
    folder = tmp_path_factory.mktemp("application")
    (folder / "node_modules").symlink_to(JS / "node_modules")
    (folder / "package.json").write_text('{"type": "module"}', "utf-8")
    shutil.copy(JS / "openapi_client.mts", folder)
    bin_ = JS / "node_modules/.bin"
    assert ran(bin_ / "openapi-typescript", DOCUMENT, "-o", folder / "schema.d.ts")[0] == 0
    options = {"strict": True, "module": "nodenext", "target": "es2022", "lib": ["es2022", "dom"], "types": []}
    files = ["openapi_client.mts", "schema.d.ts"]
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "files": files}), "utf-8")
    assert ran(bin_ / "tsc", "--skipLibCheck", cwd=folder) == (0, "")
    return folder / "openapi_client.mjs"


def test_a_generated_client_compiles_and_works(application, tmp_path):
    server = Server(tmp_path / "s.db", "--default-agent", "")
    try:
        code, said = ran("node", application, server.url, cwd=application.parent)
    finally:
        server.close()
    assert code == 0, said
    told = json.loads(said)
    detail = told["problem"].pop("detail")
    assert told == {
        "session": "trip/oslo",
        "said": [1],
        "asked": "guide",
        "stopped": "cancelled",
        "markdown": "# Oslo",
        "problem": {"type": f"{PROBLEM}session-not-found", "status": 404},
        "missing": 404,
    }
    assert detail.startswith("there is no session 'nowhere'. ")
