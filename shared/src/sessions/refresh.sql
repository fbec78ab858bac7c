-- Replaces a session's refresh token by its successor, or ends the session.
--
-- $1  text      session id
-- $2  bytea     digest of the token
-- $3  bytea[]   digests of its successors, one for each live pepper, newest first
-- $4  int4      days that the session may be idle
-- $5  int4      days from its beginning to its end
--
-- Returns one row, all NULL if there is no such session or it is over:
--   user_id, auth_time   auth_time: the session's beginning, seconds since 1970
--   token_digest         of the newest token now
--   revoked              true: the token was neither the newest nor, for 60 seconds, the previous
--                        one, and the session is over now
WITH decided AS (
    UPDATE sessions SET
        token_digest = CASE WHEN token_digest = $2 THEN $3[1] ELSE token_digest END,
        refreshed_at = CASE WHEN token_digest = $2 THEN now() ELSE refreshed_at END,
        expires_at = CASE WHEN token_digest = $2
                          THEN least(now() + make_interval(days => $4),
                                     created_at + make_interval(days => $5))
                          ELSE expires_at END,
        revoked_at = CASE WHEN token_digest = $2 THEN NULL
                          WHEN token_digest = ANY ($3)
                               AND refreshed_at > now() - interval '60 seconds' THEN NULL
                          ELSE now() END
    WHERE id = $1 AND revoked_at IS NULL AND expires_at > now()
    RETURNING user_id, token_digest, revoked_at IS NOT NULL AS revoked,
              floor(extract(epoch FROM created_at))::int8 AS auth_time
)
SELECT user_id, token_digest, revoked, auth_time
FROM (VALUES (1)) AS always LEFT JOIN decided ON true
