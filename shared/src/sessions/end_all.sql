-- Ends the session of a refresh token, and all others of its user if the token is valid.
--
-- $1  text      session id
-- $2  bytea     digest of the token
-- $3  bytea[]   digests of its successors, one for each live pepper
--
-- Returns one row: the number of sessions that it ended.
WITH valid AS (
    -- As for a refresh: the newest token or, for 60 seconds, the previous one.
    SELECT user_id FROM sessions
    WHERE id = $1 AND revoked_at IS NULL AND expires_at > now()
          AND (token_digest = $2
               OR token_digest = ANY ($3) AND refreshed_at > now() - interval '60 seconds')
), owner AS (
    -- Two of these, or one and the deletion of the user, could lock the sessions in different
    -- orders and deadlock. The lock on the user makes one wait before it locks any.
    SELECT id FROM users WHERE id = (SELECT user_id FROM valid) FOR NO KEY UPDATE
), theirs AS (
    SELECT $1 AS id UNION SELECT id FROM sessions WHERE user_id = (SELECT id FROM owner)
), ended AS (
    UPDATE sessions SET revoked_at = now()
    WHERE id IN (SELECT id FROM theirs) AND revoked_at IS NULL
    RETURNING id
)
SELECT count(*) FROM ended
