"""Every example runs headless, as its documentation says."""

import socket
import sys

import pytest

from tests.processes import PATIENCE, ROOT, Process, python


@pytest.mark.parametrize(
    ("example", "flags", "said"),
    [
        ("approval.py", (), r"I found a seat for 120 kr\. Seat 12A is yours\."),
        ("handoff.py", (), r"A draft about fjords\. \(4 words, and I would not change one\.\)"),
        (
            "voice_to_text.py",
            ("--speed", "1"),
            r"assistant \[text\]: I booked Sunday\.",
        ),
    ],
)
@pytest.mark.sampled(3)
def test_an_example_does_what_it_says(own_server, example, flags, said):
    process = Process(
        sys.executable, ROOT / "examples" / example, "--url", own_server.url, "--once", *flags, fork=True
    )
    try:
        process.wait_for(said)
        assert process.child.wait(PATIENCE) == 0
        if example == "voice_to_text.py":
            process.wait_for(r"assistant \[text\]: You said: And on Sunday\?")
            process.wait_for(r"on the laptop: 'Plan.*phone speaking \(voice\)")
            process.wait_for(
                r"assistant \[text\]: You said: Plan my weekend in Oslo, please\. It may rain on Saturday\."
            )
            process.wait_for(r"Ann \[voice\]: Plan my weekend in Oslo, please\. It may rain on Saturday\.")
    finally:
        process.close()


@pytest.mark.parametrize(
    "words", ["approval", "demo_agents planner", "handoff", "model_agent", "terminal_peer", "voice_to_text"]
)
def test_an_error_that_is_to_be_expected_is_said_in_a_line(words):
    example, *more = words.split()
    done = python(ROOT / "examples" / f"{example}.py", *more, "--url", "ftp://nowhere")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert done.stderr.startswith(f"{example}.py: 'ftp://nowhere' is not the URL of a service")


@pytest.mark.parametrize("words", ["replay_server", "scripted_model", "serverless --secret whsec_x"])
def test_a_port_that_is_taken_is_said_in_a_line(words):
    example, *more = words.split()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = python(ROOT / "examples" / f"{example}.py", *more, "--port", port)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith(f"{example}.py: cannot listen on port {port}: Address already in use")


def test_an_example_ends_when_its_service_does(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = ("--once", "--port", port, "--database", tmp_path / "s.db")
        done = python(ROOT / "examples/gateways/run.py", *flags)
    assert done.returncode == 1
    assert done.stderr.endswith(
        f"the service at http://127.0.0.1:{port} does not become ready; its message stands above\n"
    )


def test_the_serverless_example_starts_its_own_service():
    process = Process(sys.executable, ROOT / "examples/serverless.py", "--once")
    try:
        process.wait_for(r"Good evening\. You said: Anybody awake\?")
        assert process.child.wait(PATIENCE) == 0
    finally:
        process.close()
