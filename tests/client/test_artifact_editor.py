"""An agent edits artifacts beside people, as docs/how-to/editors.md says: small edits, carets, streaming, undo."""

from __future__ import annotations

import asyncio

import pytest

from crdt_sessions import connect
from crdt_sessions.client.artifact_editor import ArtifactEditor
from crdt_sessions.errors import BadValue, NotFound
from crdt_sessions.model import ArtifactHead, RelativePosition
from crdt_sessions.model.artifacts import ContentKind
from crdt_sessions.model.dialects import Dialect
from crdt_sessions.model.steps import content_in
from crdt_sessions.model.suggestions import PieceDecision
from tests.processes import PATIENCE, Server


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    process = Server(tmp_path_factory.mktemp("editors") / "s.db", "--default-agent", "")
    yield process
    process.close()


@pytest.fixture
def room(request, service):
    name = "".join(char if char.isalnum() else "-" for char in request.node.name)[-60:].strip("-")
    return name


def editor(peer, kind: ContentKind = "text", content: str = "", dialect: Dialect = "tiptap") -> ArtifactEditor:
    peer.edit(lambda view: view.artifacts.begin(ArtifactHead(id="draft", created_at=1), kind, dialect))
    draft = ArtifactEditor(peer, "draft", run="run-1", dialect=dialect)
    if content:
        draft.edit(content)
    return draft


def text_of(peer) -> str:
    found = peer.view.artifacts.value("draft")
    return found.content if found is not None else ""


def caret(ann, key="cursor"):
    """Return where the other one's caret is, as anchor and head."""
    (presence,) = ann.present().values()
    said = presence.cursor if key == "cursor" else presence.model_extra[key]
    places = (RelativePosition.model_validate(said[end]) for end in ("anchor", "head"))
    return tuple(ann.view.artifacts.index_of("draft", place) for place in places)


async def test_a_text_is_edited_by_passages_and_the_caret_stays_where_it_is_while_others_type(service, room):
    async with connect(service.url, room, id="ann") as ann, connect(service.url, room, id="bot") as bot:
        draft = editor(bot, content="We go by 🚗 car to Oslo.")
        draft.edit("train", of="🚗 car")
        assert draft.content == "We go by train to Oslo."
        await bot.durable()
        await ann.until(lambda: "train" in text_of(ann) and any(each.cursor for each in ann.present().values()))
        end = len("We go by train")
        await asyncio.wait_for(ann.until(lambda: caret(ann) == (end, end)), PATIENCE)
        assert caret(ann, "selection") == (end, end)
        ann.edit(lambda view: view.artifacts.splice("draft", 0, 0, "Tomorrow. "))
        assert caret(ann) == (end + 10, end + 10)
        draft.select("Oslo")
        at = text_of(ann).index("Oslo")
        await asyncio.wait_for(ann.until(lambda: caret(ann) == (at, at + 4)), PATIENCE)
        for wrong, why in (("Bergen", "not there"), ("o", "times"), ("", "empty")):
            with pytest.raises(BadValue, match=why):
                draft.edit("x", of=wrong)
        with pytest.raises(IndexError):
            draft.insert(99, "x")


@pytest.mark.parametrize("dialect", ["tiptap", "prosemirror", "blocknote", "lexical"])
async def test_rich_text_is_edited_in_markdown_and_what_people_wrote_stays(service, room, dialect):
    async with connect(service.url, room, id="ann") as ann, connect(service.url, room, id="bot") as bot:
        draft = editor(bot, "xml", "# Plan\n\nWe go by **car** now.\n\n- one\n", dialect)
        assert (draft.kind, draft.dialect) == ("xml", dialect)
        draft.edit("train", of="car")
        assert draft.content == "# Plan\n\nWe go by **train** now.\n\n- one\n"
        draft.select("one")
        with pytest.raises(NotFound):
            draft.append("x")
        with pytest.raises(BadValue, match="picture or a new line"):
            draft.edit("![a](b)", of="train")
        draft.edit(draft.content.replace("- one", "- one\n- two"))
        assert draft.content.endswith("- one\n- two\n")
        await bot.durable()
        await ann.until(lambda: "two" in text_of(ann))
        assert "train" in text_of(ann)


async def test_words_stream_to_a_place_while_people_type_around_it(service, room):
    async with connect(service.url, room, id="ann") as ann, connect(service.url, room, id="bot") as bot:
        draft = editor(bot, content="Summary: END")
        async with draft.stream(after="Summary: ") as out:
            for word in ("all ", "went 😀 ", "well. "):
                await out.write(word)
                await bot.durable()
                await ann.until(lambda word=word: word in text_of(ann))
                ann.edit(lambda view: view.artifacts.splice("draft", 0, 0, "é"))
                await ann.durable()
                length = len(draft.content)
                await bot.until(lambda length=length: len(draft.content) >= length)
        await bot.until(lambda: draft.content.startswith("ééé"))
        assert draft.content == "éééSummary: all went 😀 well. END"


@pytest.mark.parametrize("dialect", ["tiptap", "blocknote", "lexical"])
async def test_blank_lines_begin_paragraphs_in_rich_text(service, room, dialect):
    async with connect(service.url, room, id="bot") as bot:
        draft = editor(bot, "xml", "# Plan\n", dialect)
        async with draft.stream() as out:
            for token in ("One ", "two\nthree.", "\n", "\nFour", " five.\n\n"):
                await out.write(token)
        assert draft.content == "# Plan\n\nOne two three.\n\nFour five.\n"
        async with draft.stream(after="One") as out:
            await out.write(" and a half")
        assert draft.content == "# Plan\n\nOne and a half two three.\n\nFour five.\n"


@pytest.mark.parametrize("dialect", ["tiptap", "prosemirror", "blocknote", "lexical"])
async def test_markdown_becomes_blocks_as_it_comes_while_people_type_in_them(service, room, dialect):
    async with connect(service.url, room, id="ann") as ann, connect(service.url, room, id="bot") as bot:
        draft = editor(bot, "xml", "", dialect)
        async with draft.stream() as out:
            await out.write("# Pl")
            assert draft.content == "# Pl\n"
            await out.write("an\n\nWe go by **train** to ")
            assert draft.content == "# Plan\n\nWe go by **train** to\n"
            await bot.durable()
            await ann.until(lambda: "train" in text_of(ann))
            ArtifactEditor(ann, "draft").edit("all go", of="go")
            await ann.durable()
            await bot.until(lambda: "all go" in draft.content)
            for token in (
                "Os",
                "lo.\n\n- one\n",
                "- tw",
                "o\n\n```py\nx = 1\n",
                "```\n\n| a |\n|---|\n| 1 |\n\n*end",
            ):
                await out.write(token)
            assert "*end" not in draft.content, "it may become italic"
        expected = "# Plan\n\nWe all go by **train** to Oslo.\n\n- one\n- two\n\n```py\nx = 1\n```\n\n| a |\n| --- |\n| 1 |\n\n\\*end\n"
        assert draft.content == expected
        await bot.durable()
        await ann.until(lambda: text_of(ann) == text_of(bot))
        async with draft.stream(after="Oslo") as out:
            await out.write(", *or* Bergen\n\n## More\n\nx")
        changed = expected.replace("Oslo.", "Oslo, *or* Bergen.").replace("- one", "## More\n\nx\n\n- one")
        assert draft.content == changed


async def test_a_block_that_somebody_takes_away_is_not_written_again(service, room):
    async with connect(service.url, room, id="ann") as ann, connect(service.url, room, id="bot") as bot:
        draft = editor(bot, "xml", "# Plan\n")
        async with draft.stream() as out:
            await out.write("One two")
            await bot.durable()
            await ann.until(lambda: "One" in text_of(ann))
            ann.edit(lambda view: content_in(view.document.doc, "draft").children.__delitem__(1))
            await ann.durable()
            await bot.until(lambda: "One" not in draft.content)
            await out.write(" three.\n\nFour")
        assert draft.content == "# Plan\n\nFour\n"


async def test_what_a_run_did_is_undone_from_another_device_after_it_is_gone(service, room):
    async with connect(service.url, room, id="ann") as ann:
        asked = await ann.post("write", agent="writer")
        run = f"run-{asked.id}"
        ann.edit(lambda view: view.artifacts.add(ArtifactHead(id="draft", created_at=1), "Ours, of people."))
        await ann.durable()
        async with connect(service.url, room, id="bot") as bot:
            draft = ArtifactEditor(bot, "draft", run=run)
            draft.edit("Theirs", of="Ours")
            draft.append(" And more.")
            async with draft.stream(after="people") as out:
                await out.write(" and robots")
            await bot.durable()
        await ann.until(lambda: "robots" in text_of(ann))
        at = text_of(ann).index("robots")
        ann.edit(lambda view: view.artifacts.splice("draft", at, 0, "(Ann) "))
        await ann.durable()
    async with connect(service.url, room, id="bob") as bob:
        assert len(await bob.undo(run, artifact="draft")) == 1
        await bob.until(lambda: text_of(bob) == "Ours, of people(Ann) .")
        assert await bob.undo(run) == []


def decide(service, room, suggestion, **said):
    with service.http() as http:
        return http.post(f"/v1/sessions/{room}/suggestions/{suggestion}/decisions", json=said)


async def test_pieces_of_a_suggestion_are_accepted_and_rejected_once_each(service, room):
    async with connect(service.url, room, id="ann") as ann, connect(service.url, room, id="bot") as bot:
        draft = editor(bot, content="We go by car, at noon, to Oslo.")
        suggested = draft.suggest("We go by train, at dawn, to Oslo.", note="greener")
        await bot.durable()
        assert [(each.before, each.after) for each in bot.view.suggestions[suggested].pieces] == [
            ("car", "train"),
            ("noon", "dawn"),
        ]
        assert draft.content == "We go by car, at noon, to Oslo.", "nothing changes by itself"
        ann.edit(lambda view: view.artifacts.splice("draft", 0, 2, "Tomorrow we"))
        await ann.durable()
        accepted = decide(service, room, suggested, accepted=True, pieces=[0], principal="ann").json()
        assert accepted["settled"]["0"]["by"] == "ann"
        late = decide(service, room, suggested, accepted=False, principal="bob", pieces=[0])
        assert (late.status_code, late.json()["by"]) == (409, "ann")
        ann.edit(lambda view: view.suggestions.decide(suggested, 1, "ann", PieceDecision(accepted=False, at=1)))
        settled = (await draft.decided(suggested)).settled
        assert {piece: each.accepted for piece, each in settled.items()} == {"0": True, "1": False}
        await bot.until(lambda: draft.content == "Tomorrow we go by train, at noon, to Oslo.")
        assert decide(service, room, suggested, accepted=True, pieces=[7]).status_code == 404
        assert decide(service, room, "nothing", accepted=True).status_code == 404


async def test_who_decides_offline_and_later_is_told_and_what_is_settled_stays(service, room):
    async with connect(service.url, room, id="ann") as ann, connect(service.url, room, id="bot") as bot:
        draft = editor(bot, "xml", "# Plan\n\nWe go by **car** now.\n")
        suggested = draft.suggest("*train*", of="car")
        await bot.durable()
        await ann.until(lambda: suggested in ann.view.suggestions)
        ann.go_offline()
        ann.edit(lambda view: view.suggestions.decide(suggested, 0, "ann", PieceDecision(accepted=False, at=1)))
        assert decide(service, room, suggested, accepted=True, principal="bob").status_code == 200
        await bot.until(lambda: "*train*" in draft.content)
        ann.go_online()
        await ann.until(lambda: bool(ann.view.suggestions[suggested].late))
        found = ann.view.suggestions[suggested]
        assert [(each.by, each.why, each.accepted) for each in found.late] == [("ann", "late", False)]
        overwritten = found.settled["0"].replace(accepted=False, by="ann")
        ann.edit(lambda view: view.suggestions.put(suggested, 0, overwritten))
        await ann.durable()
        await ann.until(lambda: ann.view.suggestions[suggested].settled["0"].by == "bob")
        assert draft.content == "# Plan\n\nWe go by *train* now.\n", "it was done once"


async def test_what_has_changed_meanwhile_is_not_changed_by_a_suggestion(service, room):
    async with connect(service.url, room, id="bot") as bot:
        draft = editor(bot, content="We go by car to Oslo.")
        suggested = draft.suggest("train", of="car")
        draft.edit("cart", of="car")
        await bot.durable()
        answer = decide(service, room, suggested, accepted=True, principal="ann").json()
        assert answer["settled"]["0"]["outdated"] is True
        assert draft.content == "We go by cart to Oslo."
        with service.http() as http:
            url = f"/v1/sessions/{room}/artifacts/draft/suggestions"
            new = {"id": "s1", "content": "bus", "of": "cart"}
            assert http.post(url, json=new).status_code == 201
            assert http.post(url, json=new).json()["pieces"][0]["after"] == "bus"
            assert http.post(url, json={"content": "x", "of": "nowhere"}).status_code == 422
            assert [each["id"] for each in http.get(url).json()["suggestions"]] == [suggested, "s1"]
        assert decide(service, room, "s1", accepted=True, principal="ann").status_code == 200
        await bot.until(lambda: draft.content == "We go by bus to Oslo.")
