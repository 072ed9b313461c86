"""``crdt-sessions import`` of another server's documents."""

from __future__ import annotations

import argparse
from contextlib import AsyncExitStack, closing
from pathlib import Path

from crdt_sessions.runtime import Sandbox, SessionRegistry
from crdt_sessions.storage import MemoryStore, UpdateStore
from crdt_sessions.storage.addresses import shown
from crdt_sessions_server.migration.importing import Importer, Progress
from crdt_sessions_server.migration.report import Report, Say
from crdt_sessions_server.migration.source import Source
from crdt_sessions_server.service import store_of
from crdt_sessions_server.settings import Settings


async def bring_over(source: Source, parsed: argparse.Namespace, say: Say, progress: Progress) -> int:
    """Bring a source's documents over, as the command line says; return the exit status.

    Raises:
        StorageError: the database cannot be used, or the source cannot be read.
        ValueError: the report cannot be written.
    """
    settings = Settings.load({"database": parsed.database})
    report = Report(parsed.dry_run)
    async with AsyncExitStack() as stack:
        stack.enter_context(closing(source))
        store = await _entered(settings, stack, report)
        sandbox = await stack.enter_async_context(Sandbox(memory_bytes=settings.max_sandbox_bytes))
        registry = SessionRegistry(store, limits=settings.limits, rules=settings.rules, sandbox=sandbox)
        await stack.enter_async_context(registry)
        importer = Importer(registry, parsed.tenant, parsed.prefix, parsed.merge, parsed.dry_run)
        count = len(source.names())
        say(f"{parsed.source} is {source.kind}, with {count} document{'' if count == 1 else 's'}")
        await importer.run(source, report, progress)
    report.tell(say)
    if parsed.report is not None:
        try:
            report.write(parsed.report)
        except OSError as error:
            raise ValueError(f"the report cannot be written to {parsed.report}: {error.strerror}") from error
    if not report.took:
        say("nothing was brought over" if not parsed.dry_run else "nothing would be brought over")
    elif report.whole:
        serve = f"crdt-sessions serve --database {shown(settings.database)}"
        say(f"next: {'run it without --dry-run' if parsed.dry_run else serve}")
    return 0 if report.whole else 1


async def _entered(settings: Settings, stack: AsyncExitStack, report: Report) -> UpdateStore:
    """Return the store, open until *stack* ends; to look only, or if nothing is taken, no file is made."""
    new = settings.database if isinstance(settings.database, Path) and not settings.database.exists() else None
    if report.trial and new is not None:
        return MemoryStore()
    store = await stack.enter_async_context(store_of(settings))

    def leave_none() -> None:
        if new is not None and not report.took:  # its lock is held still, so nobody else has begun to use it
            for suffix in ("", "-wal", "-shm"):
                new.with_name(f"{new.name}{suffix}").unlink(missing_ok=True)

    stack.callback(leave_none)
    return store
