-- The outbox of a session table: a row for each session that began, was renewed
-- or has ended, written by the statement that did it. NewPostgresStore runs this
-- when PostgresOptions.Outbox names a table that is missing; by hand: psql -f
-- outbox.sql. It changes nothing that is there, and may run anywhere at the same time.
-- Programs need the right to insert; who reads it deletes what he has read.

-- Read committed, whatever the default is: each statement must see what others
-- have made while the lock was waited for.
BEGIN ISOLATION LEVEL READ COMMITTED;

-- CREATE ... IF NOT EXISTS alone fails when two programs start at once.
SELECT pg_catalog.pg_advisory_xact_lock(7163384699731669);

DO $do$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) 'schema_system') THEN
    CREATE SCHEMA schema_system;
  END IF;
END
$do$;

DO $do$
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    WHERE n.nspname OPERATOR(pg_catalog.=) 'schema_system' AND c.relname OPERATOR(pg_catalog.=) 'session_outbox'
  ) THEN
    CREATE TABLE schema_system.session_outbox (
      -- Given out before the commit: a lower one may come later. Delete what was
      -- read, and remember no number.
      id         pg_catalog.int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      at         pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
      kind       pg_catalog.text NOT NULL, -- created, renewed, destroyed, revoked, expired
      handle     pg_catalog.text NOT NULL, -- a hash of the session ID
      old_handle pg_catalog.text,          -- of a renewal: the one before
      user_value pg_catalog.text,          -- whose session it is
      reason     pg_catalog.text NOT NULL  -- limit, device, absolute, or nothing
    );
  END IF;
END
$do$;

COMMIT;
