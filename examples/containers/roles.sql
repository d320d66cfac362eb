-- The two roles, made once by a superuser with psql. compose.yaml does so at the
-- first start; elsewhere:
--
--   SECRETS=examples/containers/secrets psql "$SUPERUSER_URL" -f examples/containers/roles.sql
--
-- shop_owner makes tables (sessionctl schema --apply), and nobody logs in as it
-- otherwise. shop_app, which the instances are, reads and writes rows, and can
-- neither change the table nor make another.
\set ON_ERROR_STOP on
\set owner_password `cat "${SECRETS:-/run/secrets}/owner_password"`
\set app_password `cat "${SECRETS:-/run/secrets}/app_password"`

BEGIN;
SET LOCAL log_statement = 'none'; -- no password in the server's log
SET LOCAL log_min_duration_statement = -1;
SET LOCAL log_min_error_statement = panic;
CREATE ROLE shop_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE shop_app LOGIN PASSWORD :'app_password';
CREATE SCHEMA schema_system AUTHORIZATION shop_owner;
GRANT USAGE ON SCHEMA schema_system TO shop_app;
-- What shop_owner will make there, shop_app may use.
ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA schema_system
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO shop_app;
COMMIT;
