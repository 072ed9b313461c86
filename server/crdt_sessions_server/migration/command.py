"""``crdt-sessions import`` of another server's documents."""

from __future__ import annotations

import argparse
from contextlib import AsyncExitStack, closing
from pathlib import Path

from crdt_sessions.runtime import Sandbox, SessionRegistry
from crdt_sessions.storage import MemoryStore, UpdateStore
from crdt_sessions.storage.addresses import shown
from crdt_sessions_server.migration.importing import Importer, Progress
from crdt_sessions_server.migration.report import Say
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
    async with AsyncExitStack() as stack:
        stack.enter_context(closing(source))
        store = await _entered(settings, stack, trial=parsed.dry_run)
        sandbox = await stack.enter_async_context(Sandbox(memory_bytes=settings.max_sandbox_bytes))
        registry = SessionRegistry(store, limits=settings.limits, rules=settings.rules, sandbox=sandbox)
        await stack.enter_async_context(registry)
        importer = Importer(registry, parsed.tenant, parsed.prefix, parsed.merge, parsed.dry_run)
        count = len(source.names())
        say(f"{parsed.source} is {source.kind}, with {count} document{'' if count == 1 else 's'}")
        report = await importer.run(source, progress)
    report.tell(say)
    if parsed.report is not None:
        try:
            report.write(parsed.report)
        except OSError as error:
            raise ValueError(f"the report cannot be written to {parsed.report}: {error.strerror}") from error
    if report.whole:
        again = "run it without --dry-run" if parsed.dry_run else "crdt-sessions serve --database"
        say(f"next: {again}" + ("" if parsed.dry_run else f" {shown(settings.database)}"))
    return 0 if report.whole else 1


async def _entered(settings: Settings, stack: AsyncExitStack, *, trial: bool) -> UpdateStore:
    """Return the store, open until *stack* ends; to look only, no file is made."""
    if trial and isinstance(settings.database, Path) and not settings.database.exists():
        return MemoryStore()
    return await stack.enter_async_context(store_of(settings))
