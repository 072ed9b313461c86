"""The browser quickstarts of README.md, as they stand: stock Yjs and useChat, each in a Vite of its own, in Chromium."""

import json
import subprocess
import sys

import pytest

from tests.browser.chromium import in_chromium
from tests.docs.page import blocks
from tests.docs.reader import PACKAGES, link_packages
from tests.processes import PATIENCE, ROOT, Process, Server, free_port

# what `npm create vite@latest chat -- --template react` makes, but for its looks
_TEMPLATE = {
    "index.html": '<!doctype html><div id="root"></div><script type="module" src="/src/main.jsx"></script>',
    "src/main.jsx": "import { StrictMode } from 'react'\nimport { createRoot } from 'react-dom/client'\n"
    "import App from './App.jsx'\n\n"
    "createRoot(document.getElementById('root')).render(<StrictMode><App /></StrictMode>)\n",
    "vite.config.js": "import { defineConfig } from 'vite'\nimport react from '@vitejs/plugin-react'\n\n"
    "export default defineConfig({ plugins: [react()] })\n",
    "package.json": '{ "name": "chat", "private": true, "type": "module" }\n',
}


@in_chromium
@pytest.mark.skipif(not (PACKAGES / "vite").is_dir(), reason="needs Node: make setup")
def test_the_browser_quickstarts_of_the_readme_work_as_they_stand(tmp_path):
    server = Server(tmp_path / "s.db")
    found = blocks(ROOT / "README.md")
    files = {block.options["file"]: block.text for block in found if "file" in block.options}
    (jsx,) = (block.text for block in found if block.language == "jsx")
    agent = Process(
        sys.executable, "agent.py", fork=True, folder=_project(tmp_path / "agent", server, files, "agent.py")
    )
    stock = _vite(_project(tmp_path / "stock", server, files, "index.html", "main.js"))
    chat = _vite(_project(tmp_path / "chat", server, {**_TEMPLATE, "src/App.jsx": jsx}, *_TEMPLATE, "src/App.jsx"))
    try:
        urls = [each.wait_for(r"Local: +(http\S+)")[1] for each in (stock, chat)]
        done = subprocess.run(
            ["node", ROOT / "tests/browser/quickstarts.mjs", *urls],
            capture_output=True, text=True, timeout=2 * PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + "\n".join(agent.lines + stock.lines + chat.lines)
        assert json.loads(done.stdout.splitlines()[-1])["errors"] == []
    finally:
        for process in (chat, stock, agent, server):
            process.close()


def _project(folder, server, files, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[name].replace("127.0.0.1:8000", f"127.0.0.1:{server.port}"), "utf-8")
    return folder


def _vite(folder):
    link_packages(PACKAGES, folder)
    port = free_port()
    env = {"NO_COLOR": "1"}
    return Process("npx", "vite", "--port", port, "--strictPort", env=env, folder=folder, group=True)
