"""Every example runs headless, as its documentation says."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.processes import ROOT, Process, Server


@pytest.mark.parametrize(
    ("example", "flags", "said"),
    [
        ("approval.py", (), r"I found a seat for 120 kr\. Seat 12A is yours\."),
        ("handoff.py", (), r"A draft about fjords\. \(4 words, and I would not change one\.\)"),
        ("voice_to_text.py", ("--speed", "4"), r"assistant \[text\]: You said: And on Sunday\?"),
    ],
)
def test_an_example_does_what_it_says(server, example, flags, said):
    process = Process(sys.executable, ROOT / "examples" / example, "--url", server.url, "--once", *flags)
    try:
        process.wait_for(said, 40)
        assert process.child.wait(20) == 0
        if example == "voice_to_text.py":
            process.wait_for(r"on the laptop: 'Plan.*phone speaking \(voice\)")
            process.wait_for(
                r"assistant \[text\]: You said: Plan my weekend in Oslo, please\. It may rain on Saturday\."
            )
            process.wait_for(r"Ann \[voice\]: Plan my weekend in Oslo, please\. It may rain on Saturday\.")
    finally:
        process.close()


def test_the_serverless_example_starts_its_own_service():
    process = Process(sys.executable, ROOT / "examples/serverless.py", "--once")
    try:
        process.wait_for(r"Good evening\. You said: Anybody awake\?", 40)
        assert process.child.wait(20) == 0
    finally:
        process.close()


def test_the_tutorial_works_as_it_stands(server, tmp_path):
    """Its agent and its asker, as they are printed."""
    text = (ROOT / "docs/tutorial/your-first-agent.md").read_text("utf-8")
    agent, asker, _ = re.findall(r"```python\n(.*?)```", text, re.S)
    for name, code in (("agent.py", agent), ("asker.py", asker)):
        (tmp_path / name).write_text(code.replace("http://127.0.0.1:8000", server.url), "utf-8")
    parrot = Process(sys.executable, tmp_path / "agent.py")
    ann = Process(sys.executable, tmp_path / "asker.py")
    try:
        ann.wait_for("parrot says: You said: Plan my weekend", 30)
        assert ann.child.wait(20) == 0
        assert parrot.terminate() == 0
    finally:
        for process in (parrot, ann):
            process.close()


def test_what_is_said_of_openai_and_curl_works_as_it_stands(tmp_path):
    server = Server(tmp_path / "s.db", "--default-agent", "*")
    text = (ROOT / "docs/how-to/chat-clients.md").read_text("utf-8").replace("http://127.0.0.1:8000", server.url)
    (python,) = re.findall(r"```python\n(.*?)```", text, re.S)
    curls = [line.split("#")[0] for line in text.splitlines() if line.startswith("curl ")]
    code = (ROOT / "examples/first_agent.py").read_text("utf-8").replace("http://127.0.0.1:8000", server.url)
    (tmp_path / "agent.py").write_text(code.replace('"parrot"', '"writer"'), "utf-8")
    agent = Process(sys.executable, tmp_path / "agent.py")
    try:
        asker = Process(
            sys.executable, "-c", f'import openai\ntoken, session = "none", "demo"\n{python}\nprint(answer)'
        )
        asker.wait_for("You said: Plan my weekend", 30)
        asker.close()
        assert len(curls) == 4
        for line in curls if shutil.which("curl") else ():
            command = line.replace("localhost:8000", server.url).replace("&cursor=…", "")
            done = subprocess.run(f"timeout 2 {command} -s", shell=True, capture_output=True, text=True, check=False)
            assert "Plan my weekend" in done.stdout, (command, done)
    finally:
        agent.close()
        server.close()
