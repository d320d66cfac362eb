-- The table of sessions, the same that connect-pg-simple uses. NewPostgresStore
-- runs this when the table is missing; by hand: psql -f schema.sql. It changes
-- nothing that is there, and may run anywhere at the same time. Operators and
-- functions are PostgreSQL's own, whatever stands in the search path.

-- Read committed, whatever the default is: each statement must see what others
-- have made while the lock was waited for.
BEGIN ISOLATION LEVEL READ COMMITTED;

-- CREATE ... IF NOT EXISTS alone fails when two programs start at once.
SELECT pg_catalog.pg_advisory_xact_lock(7163384699731669);

DO $do$
BEGIN
  -- Asked first, for CREATE SCHEMA IF NOT EXISTS needs the right to create one
  -- even where it exists.
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) 'schema_system') THEN
    CREATE SCHEMA schema_system;
  END IF;
END
$do$;

DO $do$
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    WHERE n.nspname OPERATOR(pg_catalog.=) 'schema_system' AND c.relname OPERATOR(pg_catalog.=) 'session'
  ) THEN
    -- The fill factor leaves room in each page, for two more versions of a row of
    -- 1 KB or one of the largest that is kept in line, so that an update that moves
    -- no indexed column stays there (heap-only) and the table does not grow by it.
    CREATE TABLE schema_system.session (
      sid    VARCHAR         NOT NULL PRIMARY KEY,
      sess   pg_catalog.json NOT NULL,
      expire TIMESTAMP(6)    NOT NULL
    ) WITH (fillfactor = 70);
    -- Data over 2 KB is compressed at each save; lz4 is the fastest at it.
    IF pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.>=) 140000 THEN
      BEGIN
        -- As a string: an older server cannot even parse it.
        EXECUTE 'ALTER TABLE ' OPERATOR(pg_catalog.||) 'schema_system.session'::pg_catalog.regclass::pg_catalog.text
          OPERATOR(pg_catalog.||) ' ALTER COLUMN sess SET COMPRESSION lz4';
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
    JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid AND a.attnum OPERATOR(pg_catalog.=) i.indkey[0]
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
    JOIN pg_catalog.pg_am m ON m.oid OPERATOR(pg_catalog.=) c.relam
    WHERE i.indrelid OPERATOR(pg_catalog.=) 'schema_system.session'::pg_catalog.regclass::pg_catalog.oid
      AND a.attname OPERATOR(pg_catalog.=) 'expire'
      AND i.indisvalid AND i.indpred IS NULL AND m.amname OPERATOR(pg_catalog.=) 'btree'
  ) THEN
    IF EXISTS (
      SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
      WHERE n.nspname OPERATOR(pg_catalog.=) 'schema_system' AND c.relname OPERATOR(pg_catalog.=) 'idx_session_expire'
    ) THEN
      CREATE INDEX ON schema_system.session (expire); -- another table's has the name: PostgreSQL finds one
    ELSE
      CREATE INDEX idx_session_expire ON schema_system.session (expire);
    END IF;
  END IF;
END
$do$;

COMMIT;
