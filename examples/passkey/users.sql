-- Run at every start; the lock lets programs that start at once take turns.
SELECT pg_advisory_xact_lock(hashtext('passkey_example'));

CREATE SCHEMA IF NOT EXISTS passkey_example;

CREATE TABLE IF NOT EXISTS passkey_example.users (
	id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	handle     bytea       NOT NULL UNIQUE, -- random: how authenticators know the user, and nothing else
	name       text        NOT NULL UNIQUE,
	email      text        NOT NULL DEFAULT '',
	created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS passkey_example.passkeys (
	id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	user_id         bigint      NOT NULL REFERENCES passkey_example.users ON DELETE CASCADE,
	credential_id   bytea       NOT NULL UNIQUE, -- the authenticator's, up to 1023 bytes
	public_key      bytea       NOT NULL,
	sign_count      bigint      NOT NULL, -- 0 for ever where passkeys are synced
	backup_eligible boolean     NOT NULL, -- it can be synced; never changes
	backed_up       boolean     NOT NULL, -- it is, as of its last use
	transports      text[]      NOT NULL,
	aaguid          bytea       NOT NULL, -- the make of the authenticator, if it says
	label           text        NOT NULL,
	created_at      timestamptz NOT NULL DEFAULT now(),
	used_at         timestamptz NOT NULL DEFAULT now(),
	locked_at       timestamptz -- it counted backwards: there may be a copy of it
);

CREATE INDEX IF NOT EXISTS passkeys_user_id ON passkey_example.passkeys (user_id);
