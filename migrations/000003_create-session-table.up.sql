-- A session is one chain of refresh tokens, of which the newest is good.
CREATE TABLE sessions (
    -- A digest of the handle in its refresh tokens. It lets nobody act, and is in access tokens.
    id text PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- SHA-256 of the newest token's secret.
    token_digest bytea NOT NULL,
    created_at timestamp with time zone NOT NULL DEFAULT now(),
    refreshed_at timestamp with time zone NOT NULL DEFAULT now(),
    expires_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone
);
CREATE INDEX sessions_user_id ON sessions (user_id);
