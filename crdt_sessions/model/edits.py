"""``edits``: what was done to artifacts step by step, so that a step can be undone on any device, at any time.

A step says which ids its client wrote while it lasted, and what it deleted: which ids, and what stood there. To undo
steps is to find out how the artifact would be without them (:func:`crdt_sessions.model.steps.without`), and to make
that of it by small edits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from pycrdt import Doc, Map, Text, TransactionEvent, XmlText
from pydantic import ValidationError

from crdt_sessions.errors import NotFound
from crdt_sessions.model.document import SessionDoc
from crdt_sessions.model.lexical import LexicalElement, LexicalText
from crdt_sessions.model.lexical_marks import INLINE
from crdt_sessions.model.nodes import (
    Atom,
    Element,
    ElementType,
    Node,
    Parent,
    TextType,
    Words,
    atoms_in,
    canonical,
    element,
    node_json,
    read_words,
)
from crdt_sessions.model.rewriting import EXACTLY, Alike, Scribe, size
from crdt_sessions.model.spelling import json_object, spelled
from crdt_sessions.model.steps import PROBED, Content, Deletion, Step, Undone, content_in, copied, units, without
from crdt_sessions.wire.update_v1 import FORMAT, Id, Ranges, parse, read_head
from crdt_sessions.wire.varint import Reader, decode_state_vector

_KIND = 0x1F
_NOWHERE = (-1, -1)
_PROBE = "probe-"
"""How attributes begin that are there to find an element again; see :data:`~crdt_sessions.model.steps.PROBED`."""


class Edits:
    """``edits``: steps, by their ids."""

    def __init__(self, document: SessionDoc) -> None:
        self._document = document

    @property
    def _root(self) -> Map[Any]:
        return self._document.roots.edits

    def begin(
        self,
        artifact_id: str,
        change: Callable[[Content, Scribe], None],
        *,
        by: str,
        at: int,
        run: str | None = None,
        alike: Alike | None = None,
    ) -> str:
        """Make a *change* of an artifact that is one step; return the step's id. :meth:`end` says what it wrote.

        Args:
            artifact_id: the artifact.
            change: is called twice, and does the same to the same content: in a copy first, to see what it
                deletes. It must make its changes with the scribe it gets.
            by: who makes it.
            at: when, in milliseconds.
            run: the run it belongs to.
            alike: what counts as the same; everything if None.

        Raises:
            NotFound: there is no such artifact.
        """
        earlier = list(self._open(self.all(artifact=artifact_id, run=run)).values()) if run is not None else []
        tracer = _Tracer(self._document.doc, artifact_id, earlier, alike or EXACTLY)
        change(content_in(tracer.doc, artifact_id), tracer)
        client = self._document.doc.client_id
        clock = decode_state_vector(self._document.doc.get_state()).get(client, 0)
        step = Step(
            artifact=artifact_id,
            run=run,
            by=by,
            at=at,
            client=client,
            clock=clock,
            length=None,
            deleted=tracer.deleted,
        )
        step_id = f"{client}-{clock}"
        self._root[step_id] = Map({"step": step.json_value()})
        change(content_in(self._document.doc, artifact_id), Scribe(alike or EXACTLY))
        return step_id

    def end(self, step_id: str) -> None:
        """Say that a step of this client's is over: what the client writes from now on is not part of it.

        Raises:
            NotFound: there is no such step.
        """
        step = self[step_id]
        clock = decode_state_vector(self._document.doc.get_state()).get(step.client, 0)
        self._root[step_id]["step"] = step.replace(length=clock - step.clock).json_value()

    def __getitem__(self, step_id: str) -> Step:
        """Return a step.

        Raises:
            NotFound: there is none that can be read.
        """
        entry = self._root.get(step_id)
        try:
            return Step.model_validate(json_object(entry.get("step")) if isinstance(entry, Map) else None)
        except ValidationError:
            raise NotFound(what="step", id=step_id) from None

    def undone(self, step_id: str) -> Undone | None:
        """Return who has undone a step; None if nobody has."""
        entry = self._root.get(step_id)
        try:
            return Undone.model_validate(json_object(entry.get("undone")) if isinstance(entry, Map) else None)
        except ValidationError:
            return None

    def ids(self) -> list[str]:
        """Return the ids of all steps."""
        return list(self._root.keys())

    def entry(self, step_id: str) -> dict[str, Any] | None:
        """Return what stands under the id of a step, as JSON; None if nothing does, or no map."""
        entry = self._root.get(step_id)
        return json_object(dict(entry.items())) if isinstance(entry, Map) else None

    def put_back(self, step_id: str, entry: Mapping[str, Any] | None) -> None:
        """Write what stands under the id of a step as it was; None if nothing did."""
        if entry is not None:
            self._root[step_id] = Map(dict(entry))
        elif step_id in self._root:
            del self._root[step_id]

    def about(self, principal: str, clients: Collection[int]) -> list[str]:
        """Return the steps that *principal* made, and those that keep what it may have written and they deleted.

        Of an element that was deleted nobody can tell who wrote in it, so each step that keeps one is among them if
        any of *clients* wrote anything here.

        Args:
            principal: who is asked about.
            clients: its Yjs clients.
        """

        def keeps(step: Step) -> bool:
            return any(each.client in clients or isinstance(each.content, dict) for each in step.deleted)

        return [
            step_id
            for step_id, step in self.all().items()
            if step.by == principal or step.client in clients or (clients and keeps(step))
        ]

    def forget(self, step_ids: Iterable[str]) -> None:
        """Forget steps, with what they have deleted. They cannot be undone any more."""
        for step_id in step_ids:
            if step_id in self._root:
                del self._root[step_id]

    def all(self, *, artifact: str | None = None, run: str | None = None) -> dict[str, Step]:
        """Return the steps that can be read, oldest first; of one artifact or run if that is said."""
        found: dict[str, Step] = {}
        for step_id in self.ids():
            try:
                step = self[step_id]
            except NotFound:
                continue
            if (artifact is None or step.artifact == artifact) and (run is None or step.run == run):
                found[step_id] = step
        return dict(sorted(found.items(), key=lambda item: (item[1].at, item[1].clock, item[0])))

    def undo(self, step_ids: Iterable[str], *, by: str, at: int) -> list[str]:
        """Undo steps, as far as they are not undone; return those that were undone now.

        What others wrote stays, also within what the steps wrote, as long as that is text. It must be done in one
        place, such as the service: two places that do it at once bring back twice what was deleted.

        Raises:
            NotFound: there is no such step, or its artifact is gone.
        """
        open_steps = self._open({each: self[each] for each in step_ids})
        for artifact_id in {step.artifact for step in open_steps.values()}:
            steps = [step for step in open_steps.values() if step.artifact == artifact_id]
            before = [step for id, step in self.all(artifact=artifact_id).items() if self.undone(id) is not None]
            rest = without(self._document.doc, artifact_id, steps, [*before, *steps])
            restore(content_in(self._document.doc, artifact_id), rest)
        for step_id in open_steps:
            self._root[step_id]["undone"] = Undone(by=by, at=at).json_value()
        return list(open_steps)

    def _open(self, steps: Mapping[str, Step]) -> dict[str, Step]:
        return {step_id: step for step_id, step in steps.items() if self.undone(step_id) is None}


def restore(content: Content, new: Sequence[Node]) -> None:
    """Make exactly *new* of the content of an artifact by small edits; of a text that is its words alone."""
    if isinstance(content, Text):
        for node in new:
            if isinstance(node, Words):
                Scribe().rewrite_text(content, node)
    else:
        Scribe().rewrite_children(content, new)


# -- what a change deletes -------------------------------------------------------------------------------------------


class _Tracer(Scribe):
    """Makes changes in a copy of a document, and notes what they delete, bit by bit: id and content."""

    def __init__(self, doc: Doc[Any], artifact_id: str, earlier: Sequence[Step], alike: Alike) -> None:
        super().__init__(alike)
        self._before = doc.get_update()
        self.doc = copied(self._before)
        self._artifact, self._earlier = artifact_id, earlier
        self.deleted: list[Deletion] = []
        self._structs: dict[int, list[tuple[int, int, bool]]] | None = None
        self._atoms: list[Atom] = []
        self._probes = 0
        self._next = _NOWHERE

    def delete(self, text: TextType, offset: int, atoms: Sequence[Atom]) -> None:
        if isinstance(text, LexicalText):
            self._note_links(text, offset, sum(map(size, atoms)))
        for atom in atoms:
            end = offset + size(atom)
            self._note(*self._only(self._ids(partial(text.__delitem__, slice(offset, end)))), atom)

    def remove(self, parent: Parent, at: int, node: Node) -> None:
        shared = parent.children[at]
        if isinstance(shared, LexicalText):
            super().remove(parent, at, node)
            return
        if isinstance(shared, ElementType):
            node = self._without_earlier(shared, node)
            place = self._element(shared)
            del parent.children[at]
        else:
            if isinstance(shared, XmlText):
                del shared[:]
            place = self._only(self._ids(partial(parent.children.__delitem__, at)))
        self._note_whole(place, node if isinstance(node, Element) else element("", {}, [node]))

    def tidy(self, text: LexicalText) -> None:
        for container, at, node in text.untidy():
            if node is not None:
                self._note_node(node)
            del container[at : at + 1]

    def _note_links(self, text: LexicalText, offset: int, length: int) -> None:
        """Note the links that go with a piece of a text: what was deleted in them cannot come back there."""
        atoms = read_words(text).atoms
        offsets = {0: 0}
        for at, atom in enumerate(atoms):
            offsets[max(offsets) + size(atom)] = at + 1
        for link, start, stop in text.covered(offset, length):
            said = self._link_without_earlier(link, Words(atoms[offsets[start] : offsets[stop]]))
            self._note_whole(self._element(link), element("", {}, [said]))

    def _link_without_earlier(self, link: LexicalElement, said: Words) -> Words:
        """Return what a link would say without what the run did to it before."""
        if not self._earlier:
            return said
        link.attributes[_PROBE] = "removed"
        found = without(self.doc, self._artifact, self._earlier, self._earlier)
        return Words(tuple(_unprobed(atom) for node in found for atom in atoms_in(node) if PROBED in atom.marks))

    def _note_node(self, node: Map[Any]) -> None:
        """Note a text node of Lexical: what others write in it is still to be what it said."""
        properties = spelled(node)
        self._probes += 1
        client, clock = _parent_in(self._delta(partial(node.__setitem__, f"{_PROBE}{self._probes}", "")))
        self.deleted.append(Deletion(client=client, clock=clock, content={"node": properties}))
        self._next = _NOWHERE

    def _note_whole(self, place: Id, content: Element) -> None:
        self.deleted.append(Deletion(client=place[0], clock=place[1], content=node_json(content)))
        self._next = _NOWHERE

    def _without_earlier(self, shared: ElementType, node: Node) -> Node:
        """Return an element as it would be without what the run did to it before: nobody can tell once it is gone."""
        if not self._earlier:
            return node
        shared.attributes[_PROBE] = "removed"
        for each in without(self.doc, self._artifact, self._earlier, self._earlier):
            if (found := _probed(each)) is not None:
                return found
        return node  # the run itself has written it

    def set_attribute(self, shared: ElementType, key: str, old: Any, new: Any) -> None:
        if old is None:
            super().set_attribute(shared, key, old, new)
            return
        element_id = self._element(shared)
        client, clock = self._only(self._ids(lambda: super(_Tracer, self).set_attribute(shared, key, old, new)))
        content = {"attribute": key, "of": element_id, "value": old}
        self.deleted.append(Deletion(client=client, clock=clock, content=content))
        self._next = _NOWHERE

    def _element(self, shared: ElementType) -> Id:
        """Return the id of an element, which what is put in it names."""
        self._probes += 1
        return _parent_in(self._delta(partial(shared.attributes.__setitem__, f"{_PROBE}{self._probes}", "")))

    def _note(self, client: int, clock: int, atom: Atom) -> None:
        """Note a character; those that stand in a row by their ids, and do so here, are noted as one."""
        if (client, clock) == self._next:
            self._atoms.append(atom)
            self.deleted[-1] = self.deleted[-1].replace(content=node_json(Words(tuple(self._atoms))))
        else:
            self._atoms = [atom]
            self.deleted.append(Deletion(client=client, clock=clock, content=node_json(Words((atom,)))))
        self._next = (client, clock + units(atom))

    def _ids(self, delete: Callable[[], None]) -> dict[int, Ranges]:
        return parse(self._delta(delete)).deleted

    def _delta(self, change: Callable[[], None]) -> bytes:
        deltas: list[bytes] = []

        def note(event: TransactionEvent) -> None:
            deltas.append(event.update)

        subscription = self.doc.observe(note)
        try:
            change()
        finally:
            self.doc.unobserve(subscription)
        return deltas[0]

    def _only(self, deleted: dict[int, Ranges]) -> Id:
        """Return the id of what was deleted, or the first of its ids, and not of formatting that went with it."""
        ids = [
            (client, clock + at)
            for client, ranges in deleted.items()
            for clock, count in ranges
            for at in range(count)
        ]
        return next((each for each in ids if not self._is_format(*each)), ids[0])

    def _is_format(self, client: int, clock: int) -> bool:
        """Whether an id is formatting; of what was written here nothing else is deleted."""
        if self._structs is None:
            update = self._before
            self._structs = {
                who: [(each.clock, each.size, update[each.start] & _KIND == FORMAT) for each in listed]
                for who, listed in parse(update).inserted.items()
            }
        structs = self._structs.get(client, ())
        return not any(at <= clock < at + count and not is_format for at, count, is_format in structs)


def _unprobed(atom: Atom) -> Atom:
    marks = {
        name: {key: each for key, each in value.items() if not key.startswith(_PROBE)} if name in INLINE else value
        for name, value in json.loads(atom.marks).items()
    }
    return Atom(atom.value, canonical(marks))


def _parent_in(delta: bytes) -> Id:
    """Return in what the one thing stands that an update inserts."""
    ((struct,),) = parse(delta).inserted.values()
    parent = read_head(Reader(delta[struct.start : struct.end])).parent
    assert isinstance(parent, tuple)
    return parent


def _probed(node: Node) -> Element | None:
    """Return the element that is marked as the one to be removed, without the mark."""
    if not isinstance(node, Element):
        return None
    if _PROBE in node.values:
        values = {key: value for key, value in node.values.items() if not key.startswith(_PROBE)}
        return element(node.name, values, node.children)
    return next((found for child in node.children if (found := _probed(child)) is not None), None)
