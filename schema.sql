-- The table of sessions, the same that connect-pg-simple uses. NewPostgresStore
-- runs this when the table is missing; by hand: psql -f schema.sql. It changes
-- nothing that is there, and may run anywhere at the same time.
BEGIN;

-- CREATE ... IF NOT EXISTS alone fails when two programs start at once.
SELECT pg_advisory_xact_lock(7163384699731669);

DO $do$
BEGIN
  -- Asked first, for CREATE SCHEMA IF NOT EXISTS needs the right to create one
  -- even where it exists.
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'schema_system') THEN
    CREATE SCHEMA schema_system;
  END IF;
END
$do$;

DO $do$
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'schema_system' AND c.relname = 'session'
  ) THEN
    -- The fill factor leaves room in each page, so that an update that moves no
    -- indexed column stays there (heap-only) and the table does not grow by it.
    CREATE TABLE schema_system.session (
      sid    VARCHAR      NOT NULL PRIMARY KEY,
      sess   JSON         NOT NULL,
      expire TIMESTAMP(6) NOT NULL
    ) WITH (fillfactor = 90);
    -- Data over 2 KB is compressed at each save; lz4 is the fastest at it.
    IF current_setting('server_version_num')::int >= 140000 THEN
      BEGIN
        -- As a string: an older server cannot even parse it.
        EXECUTE 'ALTER TABLE ' || 'schema_system.session'::regclass || ' ALTER COLUMN sess SET COMPRESSION lz4';
      EXCEPTION WHEN feature_not_supported THEN
        NULL; -- a server that was built without it
      END;
    END IF;
  END IF;
END
$do$;

-- For pruning. connect-pg-simple calls its own "IDX_session_expire".
DO $do$
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = 'schema_system.session'::regclass AND a.attname = 'expire'
  ) THEN
    CREATE INDEX idx_session_expire ON schema_system.session (expire);
  END IF;
END
$do$;

COMMIT;
