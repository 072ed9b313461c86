"""The schema, as named steps; ``migration.py`` takes them.

A service is rolled out node by node, so a release and the one before it run on one schema: a step only adds, and what
the older release needs goes in the release after. ``compatible`` is the oldest schema whose release still runs on it.
"""

from __future__ import annotations

PARTITIONS = 16
"""Of the rows, so that vacuuming them is many small works."""

_PARTITIONS = "\n".join(
    f"CREATE TABLE updates_{part} PARTITION OF updates FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {part})"
    " WITH (autovacuum_vacuum_scale_factor = 0.02);"
    for part in range(PARTITIONS)
)

STEPS: tuple[tuple[str, int, str], ...] = (
    (
        "everything that one node needs",
        1,
        f"""
        CREATE TABLE nodes (
            node    bigint PRIMARY KEY,
            name    text NOT NULL,
            version text NOT NULL,
            gone    boolean NOT NULL DEFAULT false,
            started timestamptz NOT NULL DEFAULT now()
        );

        -- One for each connection of a node that writes. Every write updates the lane's row, so that a node whose
        -- lanes are fenced commits nothing any more, and what became of a commit can be seen afterwards.
        CREATE TABLE lanes (
            node    bigint NOT NULL,
            lane    int NOT NULL,
            commits bigint NOT NULL DEFAULT 0,
            fenced  boolean NOT NULL DEFAULT false,
            PRIMARY KEY (node, lane)
        ) WITH (fillfactor = 20);

        CREATE TABLE beats (
            node bigint PRIMARY KEY,
            n    bigint NOT NULL DEFAULT 0
        ) WITH (fillfactor = 20);

        CREATE FUNCTION refuse(why text) RETURNS int LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '%', why USING ERRCODE = 'CS001';
        END $$;

        CREATE TABLE sessions (
            sid        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            id         text COLLATE "C" NOT NULL UNIQUE,
            tenant     text COLLATE "C" NOT NULL,
            generation bigint NOT NULL,
            created_at bigint NOT NULL,
            updated_at bigint NOT NULL,
            status     text NOT NULL,
            title      text,
            lineage    text NOT NULL,
            last_seq   bigint NOT NULL,
            deleted_at bigint,
            owner      bigint
        ) WITH (fillfactor = 70);

        CREATE INDEX sessions_of_tenant ON sessions (tenant, id) WHERE deleted_at IS NULL;
        CREATE INDEX sessions_by_change ON sessions (tenant, status, updated_at, id) WHERE deleted_at IS NULL;

        CREATE TABLE updates (
            sid      bigint NOT NULL,
            seq      bigint NOT NULL,
            at       bigint NOT NULL,
            checksum bigint NOT NULL,
            waits    boolean NOT NULL,
            data     bytea NOT NULL,
            PRIMARY KEY (sid, seq)
        ) PARTITION BY HASH (sid);
        {_PARTITIONS}

        CREATE TABLE snapshots (
            sid      bigint NOT NULL,
            seq      bigint NOT NULL,
            at       bigint NOT NULL,
            checksum bigint NOT NULL,
            waits    boolean NOT NULL,
            size     bigint NOT NULL,
            name     text,
            data     bytea NOT NULL,
            PRIMARY KEY (sid, seq)
        );
        ALTER TABLE snapshots ALTER COLUMN data SET STORAGE EXTERNAL; -- it is compressed already

        CREATE TABLE runs (
            session   text COLLATE "C" NOT NULL,
            id        text COLLATE "C" NOT NULL,
            tenant    text COLLATE "C" NOT NULL,
            agent     text NOT NULL,
            ready     boolean NOT NULL,
            queued_at bigint NOT NULL,
            due_at    bigint,
            data      text NOT NULL,
            status    text NOT NULL,
            answerer  text NOT NULL,
            asked_at  bigint NOT NULL,
            PRIMARY KEY (session, id)
        );
        CREATE INDEX runs_ready ON runs (agent, queued_at) WHERE ready;
        CREATE INDEX runs_due ON runs (due_at) WHERE due_at IS NOT NULL;
        CREATE INDEX runs_by_status ON runs (tenant, status, asked_at, session, id);
        CREATE INDEX runs_by_answerer ON runs (tenant, answerer, status, asked_at, session, id);

        CREATE TABLE agents (
            tenant  text NOT NULL,
            name    text COLLATE "C" NOT NULL,
            seen_at bigint NOT NULL,
            PRIMARY KEY (tenant, name)
        );

        CREATE TABLE writers (
            session   text COLLATE "C" NOT NULL,
            client    bigint NOT NULL,
            principal text NOT NULL,
            run       text NOT NULL,
            epoch     bigint NOT NULL,
            fenced_at bigint,
            PRIMARY KEY (session, client)
        );

        CREATE TABLE steps (
            session text COLLATE "C" NOT NULL,
            run     text NOT NULL,
            key     text NOT NULL,
            value   text NOT NULL,
            PRIMARY KEY (session, run, key)
        );

        CREATE TABLE deliveries (
            id         text COLLATE "C" PRIMARY KEY,
            endpoint   text NOT NULL,
            session    text COLLATE "C" NOT NULL,
            kind       text NOT NULL,
            body       text NOT NULL,
            created_at bigint NOT NULL,
            attempts   bigint NOT NULL,
            next_at    bigint NOT NULL,
            error      text,
            dead       boolean NOT NULL
        );
        CREATE INDEX deliveries_due ON deliveries (next_at) WHERE NOT dead;
        CREATE INDEX deliveries_of_session ON deliveries (session);

        CREATE TABLE members (
            session   text COLLATE "C" NOT NULL,
            principal text NOT NULL,
            role      text NOT NULL,
            PRIMARY KEY (session, principal)
        );
        CREATE INDEX members_by_principal ON members (principal, session);

        CREATE TABLE revocations (
            tenant text NOT NULL,
            kind   text NOT NULL,
            value  text NOT NULL,
            at     bigint NOT NULL,
            PRIMARY KEY (tenant, kind, value)
        );

        CREATE TABLE usage (
            tenant           text NOT NULL,
            principal        text NOT NULL,
            day              bigint NOT NULL,
            session          text COLLATE "C" NOT NULL,
            model            text NOT NULL,
            currency         text NOT NULL,
            input_tokens     bigint NOT NULL,
            cached_tokens    bigint NOT NULL,
            output_tokens    bigint NOT NULL,
            reasoning_tokens bigint NOT NULL,
            calls            bigint NOT NULL,
            cost             bigint NOT NULL,
            PRIMARY KEY (tenant, principal, day, session, model, currency)
        );
        CREATE INDEX usage_by_day ON usage (tenant, day);
        CREATE INDEX usage_by_session ON usage (session, day);

        CREATE TABLE audit (
            id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            at        bigint NOT NULL,
            tenant    text NOT NULL,
            session   text NOT NULL,
            principal text NOT NULL,
            action    text NOT NULL,
            detail    text NOT NULL
        );
        CREATE INDEX audit_of_tenant ON audit (tenant, id);
        CREATE INDEX audit_of_session ON audit (tenant, session, id);

        CREATE TABLE streams (
            id           bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
            tenant       text COLLATE "C" NOT NULL,
            path         text COLLATE "C" NOT NULL,
            content_type text NOT NULL,
            owner        text NOT NULL,
            created_at   bigint NOT NULL,
            touched_at   bigint NOT NULL,
            ttl_s        bigint,
            expires_at   bigint,
            due_at       bigint,
            tail         bigint NOT NULL,
            closed       boolean NOT NULL,
            closed_by    text,
            last_seq     text,
            source       bigint,
            forked_at    bigint NOT NULL,
            gone         boolean NOT NULL,
            version      bigint NOT NULL,
            UNIQUE (tenant, path)
        ) WITH (fillfactor = 70);
        CREATE INDEX streams_due ON streams (due_at) WHERE due_at IS NOT NULL;
        CREATE INDEX streams_by_source ON streams (source) WHERE source IS NOT NULL;

        CREATE TABLE stream_entries (
            stream   bigint NOT NULL,
            end_at   bigint NOT NULL,
            data     bytea NOT NULL,
            checksum bigint NOT NULL,
            PRIMARY KEY (stream, end_at)
        );

        CREATE TABLE stream_producers (
            stream   bigint NOT NULL,
            producer text NOT NULL,
            epoch    bigint NOT NULL,
            seq      bigint NOT NULL,
            PRIMARY KEY (stream, producer)
        );

        -- Who adds to the audit log locks this row first, so that entries appear in the order of their numbers.
        CREATE TABLE audit_turn (it boolean PRIMARY KEY DEFAULT true CHECK (it));
        INSERT INTO audit_turn DEFAULT VALUES;

        CREATE FUNCTION never_changed() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'append only';
        END $$;
        CREATE TRIGGER audit_is_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
            EXECUTE FUNCTION never_changed();
        """,
    ),
    (
        "where nodes listen for each other",
        1,
        """
        ALTER TABLE nodes
            ADD COLUMN address  text NOT NULL DEFAULT '',
            ADD COLUMN draining boolean NOT NULL DEFAULT false;
        """,
    ),
    (
        "the order in which sessions changed",
        1,
        """
        CREATE TABLE database (
            one  boolean PRIMARY KEY DEFAULT true CHECK (one),
            name text NOT NULL DEFAULT translate(gen_random_uuid()::text, '-', '')
        );
        INSERT INTO database DEFAULT VALUES;

        -- The transaction that changed a session last. Who reads on from the oldest one under way misses none: see
        -- changes.py. By triggers, so that the release before this one does its part, too.
        ALTER TABLE sessions ADD COLUMN change bigint NOT NULL DEFAULT 0;
        CREATE INDEX sessions_in_order ON sessions (tenant, change, sid);

        CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.change := pg_current_xact_id()::text::bigint;
            RETURN NEW;
        END $$;
        CREATE TRIGGER is_changed BEFORE INSERT OR UPDATE OF updated_at, title, status ON sessions
            FOR EACH ROW EXECUTE FUNCTION note_change();

        CREATE FUNCTION note_member() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE sessions SET status = status WHERE id = NEW.session;
            RETURN NULL;
        END $$;
        CREATE TRIGGER shared_is_changed AFTER INSERT OR UPDATE ON members
            FOR EACH ROW EXECUTE FUNCTION note_member();
        """,
    ),
    (
        "what nodes share: limits, deliveries, changes of rights, and who waits where",
        1,
        """
        -- How many sessions a tenant has, so that those who create one wait for each other and count right. By a
        -- trigger, so that the release before this one, and an import, count, too.
        CREATE TABLE tenants (
            tenant   text COLLATE "C" PRIMARY KEY,
            sessions bigint NOT NULL
        ) WITH (fillfactor = 50);
        CREATE FUNCTION count_session() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            more int := (NEW.deleted_at IS NULL)::int;
        BEGIN
            IF TG_OP = 'UPDATE' THEN
                more := more - (OLD.deleted_at IS NULL)::int;
            END IF;
            IF more <> 0 THEN
                INSERT INTO tenants AS known VALUES (NEW.tenant, more)
                    ON CONFLICT (tenant) DO UPDATE SET sessions = known.sessions + more;
            END IF;
            RETURN NULL;
        END $$;
        LOCK TABLE sessions IN SHARE ROW EXCLUSIVE MODE;
        INSERT INTO tenants SELECT tenant, count(*) FROM sessions WHERE deleted_at IS NULL GROUP BY tenant;
        CREATE TRIGGER is_counted AFTER INSERT OR UPDATE OF deleted_at ON sessions
            FOR EACH ROW EXECUTE FUNCTION count_session();

        ALTER TABLE deliveries ADD COLUMN taken bigint; -- by which taking it was taken last

        -- What somebody may do has changed: in a session, or by a revocation (kind, value, at). Who adds one locks
        -- access_turn first, so that changes appear in the order of their numbers.
        CREATE TABLE access_changes (
            change    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            made      timestamptz NOT NULL DEFAULT now(),
            session   text,
            principal text,
            tenant    text,
            kind      text,
            value     text,
            at        bigint
        );
        CREATE TABLE access_turn (it boolean PRIMARY KEY DEFAULT true CHECK (it));
        INSERT INTO access_turn DEFAULT VALUES;

        CREATE FUNCTION note_access() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            changed record := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
        BEGIN
            PERFORM FROM access_turn FOR UPDATE;
            IF TG_TABLE_NAME = 'members' THEN
                INSERT INTO access_changes (session, principal) VALUES (changed.session, changed.principal);
            ELSE
                INSERT INTO access_changes (tenant, kind, value, at)
                    VALUES (changed.tenant, changed.kind, changed.value, changed.at);
            END IF;
            DELETE FROM access_changes WHERE made < now() - interval '1 day';
            RETURN NULL;
        END $$;
        CREATE TRIGGER access_is_changed AFTER INSERT OR UPDATE OR DELETE ON members
            FOR EACH ROW EXECUTE FUNCTION note_access();
        CREATE TRIGGER access_is_changed AFTER INSERT OR UPDATE ON revocations
            FOR EACH ROW EXECUTE FUNCTION note_access();

        -- Which agents wait for runs at a node, or work there. A hint: it is at most a few seconds old.
        CREATE TABLE attendance (
            node   bigint NOT NULL,
            tenant text COLLATE "C" NOT NULL, -- '*' for all
            agent  text COLLATE "C" NOT NULL,
            waits  boolean NOT NULL,
            PRIMARY KEY (node, tenant, agent)
        );
        CREATE INDEX attendance_of_agent ON attendance (agent, tenant) WHERE waits;

        -- For people who look at a node: when it said last that it lives, and what it has to do.
        ALTER TABLE beats
            ADD COLUMN at          timestamptz NOT NULL DEFAULT now(),
            ADD COLUMN live        int NOT NULL DEFAULT 0,
            ADD COLUMN connections int NOT NULL DEFAULT 0;
        """,
    ),
    (
        "subscriptions to durable streams, as streams that have a state",
        1,
        """
        ALTER TABLE streams ADD COLUMN state text;

        CREATE INDEX streams_with_state ON streams (id) WHERE state IS NOT NULL;
        """,
    ),
    (
        "how many sockets a node passes on to others",
        1,
        "ALTER TABLE beats ADD COLUMN passed_on int NOT NULL DEFAULT 0;",
    ),
    (
        "the sessions of a node, for who counts it as gone",
        1,
        "CREATE INDEX sessions_of_node ON sessions (owner) WHERE owner IS NOT NULL;",
    ),
)
"""Name, the oldest schema whose release runs on it, and statements. Append only: a released step never changes."""
