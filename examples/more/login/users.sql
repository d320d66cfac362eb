-- Run at every start; the lock lets programs that start at once take turns.
SELECT pg_advisory_xact_lock(hashtext('login_example'));

CREATE SCHEMA IF NOT EXISTS login_example;

CREATE TABLE IF NOT EXISTS login_example.users (
	id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name       text        NOT NULL UNIQUE,
	password   text        NOT NULL, -- argon2id hash
	version    integer     NOT NULL DEFAULT 1, -- of the password: a session of an older one is over
	created_at timestamptz NOT NULL DEFAULT now()
);

-- Administrators are made here: UPDATE login_example.users SET admin = true WHERE name = '…';
ALTER TABLE login_example.users ADD COLUMN IF NOT EXISTS admin boolean NOT NULL DEFAULT false;

CREATE TABLE IF NOT EXISTS login_example.attempts (
	key     text        PRIMARY KEY, -- a user name or an address
	free_at timestamptz NOT NULL     -- when all its attempts are forgotten
);
