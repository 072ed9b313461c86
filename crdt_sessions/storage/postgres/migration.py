"""Brings a database up to the newest schema, in one transaction, behind one lock."""

from __future__ import annotations

from crdt_sessions.errors import ForeignDatabase, NewerSchema
from crdt_sessions.storage.postgres.connection import Connection, quoted
from crdt_sessions.storage.postgres.schema import STEPS

OURS = "crdt_sessions_schema"
"""The table that says which schema there is, and what runs on it."""
_LOCK = 0x6372_6474_7365
"""Who brings a schema up to date holds this advisory lock."""


async def migrate(connection: Connection, schema: str) -> None:
    """Bring the database up to the newest schema, in one transaction.

    Args:
        connection: whose ``search_path`` is *schema*.
        schema: the PostgreSQL schema that holds the tables; it is created if missing.

    Raises:
        NewerSchema: it is beyond what this release can run on; nothing was changed.
        ForeignDatabase: the schema holds tables of something else; nothing was changed.
        asyncpg.PostgresError: it cannot be done.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        version = await _version(connection, schema)
        if version == 0:
            await connection.execute(
                f"CREATE TABLE {OURS} (version int NOT NULL, compatible int NOT NULL);"
                f" INSERT INTO {OURS} VALUES (0, 0)"
            )
        for number, (_, compatible, statements) in enumerate(STEPS[version:], start=version + 1):
            await connection.execute(statements)
            await connection.execute(f"UPDATE {OURS} SET version = $1, compatible = $2", number, compatible)


async def _version(connection: Connection, schema: str) -> int:
    """Return which of our schemas there is; 0 if there is nothing yet."""
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema):
        await connection.execute(f"CREATE SCHEMA {quoted(schema)}")
    tables = await connection.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY tablename", schema
    )
    names = [name for (name,) in tables]
    if not names:
        return 0
    if OURS not in names:
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        why = f"its schema {schema} belongs to something else, with the tables {shown}"
        raise ForeignDatabase(path="the PostgreSQL database", why=why)
    version, compatible = await connection.fetchrow(f"SELECT version, compatible FROM {OURS}") or (0, 0)
    if compatible > len(STEPS):
        raise NewerSchema(path=f"the PostgreSQL schema {schema}", found=version, known=len(STEPS))
    return int(version)
