"""Brings documents of other Yjs servers over: what each keeps where, and how it becomes sessions.

:mod:`.sources` finds out what a path holds; a module beside it reads each kind. Nothing here writes to a source.
:mod:`.importing` makes sessions of documents, :mod:`.report` says what became of each.
"""
