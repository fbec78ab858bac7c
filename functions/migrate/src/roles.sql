-- Sets the rights of the functions' roles: each has just what its statements need. A right that a
-- role or PUBLIC had before, and that is not granted here, is gone afterwards.
--
-- :"database"                         the database
-- :"signup", :"verify", :"session"    the roles of the functions
--
-- Returns nothing. Where the user who runs this is not the owner of the database or of the schema
-- `public`, Postgres warns and leaves their rights as they are.

-- Only these roles, and the owner, come in. Nobody but the owner adds anything to the schema.
REVOKE CONNECT, TEMPORARY ON DATABASE :"database" FROM PUBLIC;
REVOKE ALL ON DATABASE :"database" FROM :"signup", :"verify", :"session";
GRANT CONNECT ON DATABASE :"database" TO :"signup", :"verify", :"session";
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM :"signup", :"verify", :"session";
GRANT USAGE ON SCHEMA public TO :"signup", :"verify", :"session";

REVOKE ALL ON users, used_challenges, sessions, _sqlx_migrations
    FROM PUBLIC, :"signup", :"verify", :"session";
REVOKE ALL ON SEQUENCE users_id_seq FROM PUBLIC, :"signup", :"verify", :"session";

-- signup asks if a number is registered, and for the number of a session's user. It writes nothing.
GRANT SELECT (id, phone_number) ON users TO :"signup";
GRANT SELECT (id, user_id, expires_at, revoked_at) ON sessions TO :"signup";

-- verify registers users, uses challenges, opens sessions, and moves a user to another number,
-- which ends the user's other sessions. The right to update also lets it lock a user's row.
GRANT SELECT, INSERT (name, phone_number), UPDATE (phone_number, version) ON users TO :"verify";
GRANT USAGE ON SEQUENCE users_id_seq TO :"verify";
GRANT SELECT (challenge_id), INSERT (challenge_id) ON used_challenges TO :"verify";
GRANT SELECT, INSERT (id, user_id, token_digest, created_at, expires_at), UPDATE (revoked_at)
    ON sessions TO :"verify";

-- session refreshes and ends sessions, and reads, renames and deletes their users.
GRANT SELECT, UPDATE (name, version), DELETE ON users TO :"session";
GRANT SELECT, UPDATE (token_digest, refreshed_at, expires_at, revoked_at)
    ON sessions TO :"session";
