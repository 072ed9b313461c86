"""What an answer reads like whose agent was killed in the middle of it, with SIGKILL."""

import asyncio
import sys

import pytest

from crdt_sessions import connect
from tests.processes import PATIENCE, TREE, Process, Server

TOLD = "Once upon a time there was an otter that swam to the sea and back again."

STORYTELLER = '''
import asyncio, sys
from crdt_sessions import Agent

url, how = sys.argv[1:]
agent = Agent(url, name="storyteller", **({"on_resume": how} if how != "by hand" else {}))
print("begins", flush=True)

@agent.on_run
async def answer(run):
    """A model that cannot go on with a text: it tells its story from the beginning, each time."""
    if how == "by hand":
        run.restart()
    async with run.text() as out:
        for word in "TOLD".split():
            await out.write(word + " ")
            await asyncio.sleep(0.1)

agent.run()
'''.replace("TOLD", TOLD)


@pytest.fixture
def server(tmp_path):
    process = Server(tmp_path / "s.db", "--lease-s", "2", "--gone-grace-s", "0.3", "--default-agent", "")
    yield process
    process.close()


def agent(*arguments):
    return Process(*map(str, arguments))


async def killed_in_mid_answer(server, start, name, asked):
    """Ask *name*, kill it once it has written some words, start it again; return the peer's view of the answer."""
    first = start()
    async with connect(server.url, "story", id="ann") as ann:
        question = await ann.post(asked, agent=name)

        def text():
            message = ann.view.messages.value(f"run-{question.id}-out")
            return message.text if message is not None else ""

        await asyncio.wait_for(ann.until(lambda: len(text().split()) >= 4), PATIENCE)
        first.kill()
        begun = text()
        second = start()
        try:
            answer = await asyncio.wait_for(ann.messages.answer_to(question), PATIENCE)
            run = ann.view.runs.find(f"run-{question.id}")
            raw = ann.view.messages[answer.id].parts
            return begun, answer, run, [str(part["text"]) for part in raw]
        finally:
            second.close()
            first.close()


@pytest.mark.parametrize("how", ["restart", "by hand"])
@pytest.mark.sampled(2)
async def test_an_answer_that_begins_anew_reads_as_if_nothing_had_happened(server, how):
    def start():
        return agent(sys.executable, "-u", "-c", STORYTELLER, server.url, how)

    begun, answer, run, raw = await killed_in_mid_answer(server, start, "storyteller", "Tell me a story")
    assert begun.split() == TOLD.split()[: len(begun.split())]
    assert answer.text.split() == TOLD.split()
    assert (run.status, run.epoch) == ("completed", 2)
    assert raw[0].startswith("Once upon a time")
    assert len(raw) == 2, "what stood there is still in the document"
    with server.http() as http:
        (listed,) = [each for each in http.get("/v1/sessions/story/messages").json()["messages"] if each["seq"] == 2]
        exported = http.get("/v1/sessions/story/export?format=markdown").text
    assert [part["text"].split() for part in listed["parts"]] == [TOLD.split()]
    assert exported.count("Once upon") == 1


@pytest.mark.nightly
async def test_without_that_it_stutters_which_is_what_it_is_for(server):
    def start():
        return agent(sys.executable, "-u", "-c", STORYTELLER, server.url, "continue")

    _, answer, _, _ = await killed_in_mid_answer(server, start, "storyteller", "Tell me a story")
    assert answer.text.count("Once upon") == 2


async def test_the_tutorials_agent_reads_well(server, tmp_path):
    source = (TREE / "examples/first_agent.py").read_text("utf-8").replace("http://127.0.0.1:8000", server.url)
    (tmp_path / "parrot.py").write_text(source, "utf-8")

    def start():
        return agent(sys.executable, "-u", tmp_path / "parrot.py")

    words = " ".join(f"word{count}" for count in range(60))
    _, answer, run, _ = await killed_in_mid_answer(server, start, "parrot", words)
    assert answer.text.split() == ["You", "said:", *words.split()]
    assert (run.status, run.epoch) == ("completed", 2)
