"""Tries updates in the sandbox for the engine of one session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from crdt_sessions.errors import Overloaded, StorageError, UpdateError, WrongLineage
from crdt_sessions.runtime.sandbox import Sandbox
from crdt_sessions.runtime.shadow import ShadowDocument
from crdt_sessions.sync import Refused, Tried, Try, Verdict


class Trials:
    """Runs trials, one at a time.

    Args:
        sandbox: tries updates.
        shadow: the sandbox's copy of the session's document.
        tell: called with each outcome.
        broke: called with any other error; that is a defect.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        shadow: ShadowDocument,
        *,
        tell: Callable[[Tried], None],
        broke: Callable[[Exception], object],
    ) -> None:
        self._sandbox = sandbox
        self._shadow = shadow
        self._tell = tell
        self._broke = broke
        self._task: asyncio.Task[None] | None = None

    def prepare(self) -> None:
        """Have the sandbox ready for a first trial."""
        self._sandbox.prepare()

    def begin(self, trial: Try) -> None:
        """Start a trial.

        It runs in a task of its own: if the peer leaves meanwhile, the shadow must not stay ahead of the document.
        """
        self._task = asyncio.create_task(self._run(trial), name=f"try {self._shadow.key}")

    @property
    def under_way(self) -> bool:
        """Whether there is a trial."""
        return self._task is not None

    async def ended(self) -> None:
        """Return once no trial is under way."""
        while self._task is not None:
            await asyncio.wait({self._task})

    def release(self) -> None:
        """Tell nobody of anything any more."""
        self._tell = self._broke = _ignored

    async def _run(self, trial: Try) -> None:
        try:
            verdict = await self._verdict(trial)
        except Exception as error:  # noqa: BLE001 - it ends the session
            self._task = None
            self._broke(error)
            return
        self._task = None
        self._tell(Tried(trial.trial, verdict))
        self._shadow.settle()

    async def _verdict(self, trial: Try) -> Verdict:
        try:
            return await self._sandbox.try_update(
                self._shadow, trial.update, apply=trial.apply, foreign=trial.foreign
            )
        except (UpdateError, WrongLineage, StorageError, Overloaded) as error:
            return Refused(error)


def _ignored(_: object) -> None:
    """The session is closed."""
