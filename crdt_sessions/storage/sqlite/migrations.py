"""The schema, as named steps. Each runs in the transaction that records it; a newer schema is refused."""

from __future__ import annotations

import aiosqlite

from crdt_sessions import failpoints
from crdt_sessions.errors import NewerSchema

_CHANGED = (
    "UPDATE sessions SET change = 1 +"
    " (SELECT max(change) FROM sessions AS others WHERE others.tenant = sessions.tenant) WHERE {}"
)
"""Put a session behind all others of its tenant in the order of changes."""

STEPS: tuple[tuple[str, str], ...] = (
    (
        "sessions and their updates",
        """
        CREATE TABLE sessions (
            id          TEXT PRIMARY KEY,
            generation  INTEGER NOT NULL,
            created_at  INTEGER NOT NULL,
            updated_at  INTEGER NOT NULL,
            status      TEXT NOT NULL,
            title       TEXT,
            last_seq    INTEGER NOT NULL,
            deleted_at  INTEGER
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE updates (
            session  TEXT NOT NULL REFERENCES sessions (id),
            seq      INTEGER NOT NULL,
            data     BLOB NOT NULL,
            checksum INTEGER NOT NULL,
            PRIMARY KEY (session, seq)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE snapshots (
            session  TEXT NOT NULL REFERENCES sessions (id),
            seq      INTEGER NOT NULL,
            data     BLOB NOT NULL,
            checksum INTEGER NOT NULL,
            PRIMARY KEY (session, seq)
        ) STRICT;
        """,
    ),
    (
        "runs, their writers and steps, and the outbox",
        """
        CREATE TABLE runs (
            session   TEXT NOT NULL REFERENCES sessions (id),
            id        TEXT NOT NULL,
            agent     TEXT NOT NULL,
            ready     INTEGER NOT NULL,
            queued_at INTEGER NOT NULL,
            due_at    INTEGER,
            data      TEXT NOT NULL,
            PRIMARY KEY (session, id)
        ) STRICT, WITHOUT ROWID;

        CREATE INDEX runs_ready ON runs (agent, queued_at) WHERE ready;

        CREATE INDEX runs_due ON runs (due_at) WHERE due_at IS NOT NULL;

        CREATE TABLE writers (
            session   TEXT NOT NULL REFERENCES sessions (id),
            client    INTEGER NOT NULL,
            principal TEXT NOT NULL,
            run       TEXT NOT NULL,
            epoch     INTEGER NOT NULL,
            fenced_at INTEGER,
            PRIMARY KEY (session, client)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE steps (
            session TEXT NOT NULL REFERENCES sessions (id),
            run     TEXT NOT NULL,
            key     TEXT NOT NULL,
            value   TEXT NOT NULL,
            PRIMARY KEY (session, run, key)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE deliveries (
            id         TEXT PRIMARY KEY,
            endpoint   TEXT NOT NULL,
            session    TEXT NOT NULL REFERENCES sessions (id),
            kind       TEXT NOT NULL,
            body       TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            attempts   INTEGER NOT NULL,
            next_at    INTEGER NOT NULL,
            error      TEXT,
            dead       INTEGER NOT NULL
        ) STRICT;

        CREATE INDEX deliveries_due ON deliveries (next_at) WHERE NOT dead;
        """,
    ),
    (
        "versions, and a place to try whether the disk takes anything",
        """
        ALTER TABLE updates ADD COLUMN at INTEGER NOT NULL DEFAULT 0;

        ALTER TABLE updates ADD COLUMN waits INTEGER NOT NULL DEFAULT 0;

        ALTER TABLE snapshots ADD COLUMN waits INTEGER NOT NULL DEFAULT 0;

        ALTER TABLE snapshots ADD COLUMN at INTEGER NOT NULL DEFAULT 0;

        ALTER TABLE snapshots ADD COLUMN name TEXT;

        UPDATE snapshots SET at = (SELECT updated_at FROM sessions WHERE id = session);

        CREATE TABLE probe (
            id    INTEGER PRIMARY KEY,
            block BLOB NOT NULL
        ) STRICT;
        """,
    ),
    (
        "compressed snapshots, and how long they were",
        """
        ALTER TABLE snapshots ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
        """,
    ),
    (
        "tenants, members of sessions, revocations and the audit log",
        """
        ALTER TABLE sessions ADD COLUMN tenant TEXT NOT NULL DEFAULT '';

        CREATE INDEX sessions_of_tenant ON sessions (tenant, id) WHERE deleted_at IS NULL;

        CREATE TABLE members (
            session   TEXT NOT NULL REFERENCES sessions (id),
            principal TEXT NOT NULL,
            role      TEXT NOT NULL,
            PRIMARY KEY (session, principal)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE revocations (
            tenant TEXT NOT NULL,
            kind   TEXT NOT NULL,
            value  TEXT NOT NULL,
            at     INTEGER NOT NULL,
            PRIMARY KEY (tenant, kind, value)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE audit (
            id        INTEGER PRIMARY KEY AUTOINCREMENT,
            at        INTEGER NOT NULL,
            tenant    TEXT NOT NULL,
            session   TEXT NOT NULL,
            principal TEXT NOT NULL,
            action    TEXT NOT NULL,
            detail    TEXT NOT NULL
        ) STRICT;

        CREATE INDEX audit_of_session ON audit (tenant, session, id);

        CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit BEGIN SELECT raise(ABORT, 'append only'); END;

        CREATE TRIGGER audit_is_never_shortened BEFORE DELETE ON audit BEGIN SELECT raise(ABORT, 'append only'); END;
        """,
    ),
    (
        "what tells a session from another one of its name",
        """
        ALTER TABLE sessions ADD COLUMN lineage TEXT NOT NULL DEFAULT '';

        UPDATE sessions SET lineage = generation || '-' || created_at;
        """,
    ),
    (
        "what sessions and runs are looked for by, and the agents that were here",
        """
        ALTER TABLE runs ADD COLUMN tenant TEXT NOT NULL DEFAULT '';

        ALTER TABLE runs ADD COLUMN status TEXT NOT NULL DEFAULT '';

        ALTER TABLE runs ADD COLUMN answerer TEXT NOT NULL DEFAULT '';

        ALTER TABLE runs ADD COLUMN asked_at INTEGER NOT NULL DEFAULT 0;

        UPDATE runs SET
            tenant = coalesce((SELECT tenant FROM sessions WHERE id = session), ''),
            status = coalesce(CASE WHEN json_valid(data) THEN json_extract(data, '$.status') END, ''),
            answerer = coalesce(CASE WHEN json_valid(data) THEN json_extract(data, '$.lease.agent') END, agent),
            asked_at = queued_at;

        CREATE INDEX runs_by_status ON runs (tenant, status, asked_at, session, id);

        CREATE INDEX runs_by_answerer ON runs (tenant, answerer, status, asked_at, session, id);

        CREATE INDEX sessions_by_change ON sessions (tenant, status, updated_at, id) WHERE deleted_at IS NULL;

        CREATE INDEX members_by_principal ON members (principal, session);

        CREATE TABLE agents (
            tenant  TEXT NOT NULL,
            name    TEXT NOT NULL,
            seen_at INTEGER NOT NULL,
            PRIMARY KEY (tenant, name)
        ) STRICT, WITHOUT ROWID;
        """,
    ),
    (
        "what runs have used, by day",
        """
        CREATE TABLE usage (
            tenant           TEXT NOT NULL,
            principal        TEXT NOT NULL,
            day              INTEGER NOT NULL,
            session          TEXT NOT NULL,
            model            TEXT NOT NULL,
            currency         TEXT NOT NULL,
            input_tokens     INTEGER NOT NULL,
            cached_tokens    INTEGER NOT NULL,
            output_tokens    INTEGER NOT NULL,
            reasoning_tokens INTEGER NOT NULL,
            calls            INTEGER NOT NULL,
            cost             INTEGER NOT NULL,
            PRIMARY KEY (tenant, principal, day, session, model, currency)
        ) STRICT, WITHOUT ROWID;

        CREATE INDEX usage_by_day ON usage (tenant, day);

        CREATE INDEX usage_by_session ON usage (session, day);
        """,
    ),
    (
        "durable streams",
        """
        CREATE TABLE streams (
            id           INTEGER PRIMARY KEY AUTOINCREMENT,
            tenant       TEXT NOT NULL,
            path         TEXT NOT NULL,
            content_type TEXT NOT NULL,
            owner        TEXT NOT NULL,
            created_at   INTEGER NOT NULL,
            touched_at   INTEGER NOT NULL,
            ttl_s        INTEGER,
            expires_at   INTEGER,
            due_at       INTEGER,
            tail         INTEGER NOT NULL,
            closed       INTEGER NOT NULL,
            closed_by    TEXT,
            last_seq     TEXT,
            source       INTEGER REFERENCES streams (id),
            forked_at    INTEGER NOT NULL,
            gone         INTEGER NOT NULL,
            UNIQUE (tenant, path)
        ) STRICT;

        CREATE INDEX streams_due ON streams (due_at) WHERE due_at IS NOT NULL;

        CREATE INDEX streams_by_source ON streams (source) WHERE source IS NOT NULL;

        CREATE TABLE stream_entries (
            stream   INTEGER NOT NULL REFERENCES streams (id),
            end_at   INTEGER NOT NULL,
            data     BLOB NOT NULL,
            checksum INTEGER NOT NULL,
            PRIMARY KEY (stream, end_at)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE stream_producers (
            stream   INTEGER NOT NULL REFERENCES streams (id),
            producer TEXT NOT NULL,
            epoch    INTEGER NOT NULL,
            seq      INTEGER NOT NULL,
            PRIMARY KEY (stream, producer)
        ) STRICT, WITHOUT ROWID;
        """,
    ),
    (
        "the order in which sessions changed",
        f"""
        CREATE TABLE database (
            id   INTEGER PRIMARY KEY CHECK (id = 1),
            name TEXT NOT NULL
        ) STRICT;

        INSERT INTO database VALUES (1, lower(hex(randomblob(8))));

        ALTER TABLE sessions ADD COLUMN change INTEGER NOT NULL DEFAULT 0;

        UPDATE sessions SET change = ranked.place FROM
            (SELECT id, row_number() OVER (PARTITION BY tenant ORDER BY updated_at, id) AS place FROM sessions)
            AS ranked WHERE ranked.id = sessions.id;

        CREATE UNIQUE INDEX sessions_in_order ON sessions (tenant, change);

        CREATE TRIGGER made_is_changed AFTER INSERT ON sessions BEGIN {_CHANGED.format("id = new.id")}; END;

        CREATE TRIGGER told_is_changed AFTER UPDATE OF title, status ON sessions
            BEGIN {_CHANGED.format("id = new.id")}; END;

        CREATE TRIGGER shared_is_changed AFTER INSERT ON members BEGIN {_CHANGED.format("id = new.session")}; END;
        """,
    ),
    (
        "subscriptions to durable streams, as streams that have a state",
        """
        ALTER TABLE streams ADD COLUMN state TEXT;

        CREATE INDEX streams_with_state ON streams (id) WHERE state IS NOT NULL;
        """,
    ),
)
"""Name and statements. Append only: a released step never changes."""


async def migrate(connection: aiosqlite.Connection, path: str) -> None:
    """Bring the database up to the newest schema, one transaction per step.

    Raises:
        NewerSchema: it is beyond what this release knows; nothing was changed.
    """
    async with connection.execute("PRAGMA user_version") as cursor:
        found = await cursor.fetchone()
    version = int(found[0]) if found else 0
    if version > len(STEPS):
        raise NewerSchema(path=path, found=version, known=len(STEPS))
    for number, (_, statements) in enumerate(STEPS[version:], start=version + 1):
        await connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements.split(";\n"):
                if statement.strip():
                    await connection.execute(statement)
                    failpoints.reach("migration")
            await connection.execute(f"PRAGMA user_version = {number}")
        except BaseException:
            await connection.execute("ROLLBACK")
            raise
        await connection.execute("COMMIT")
