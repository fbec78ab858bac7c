-- Ends a session for another one of the same user, or for itself.
--
-- $1  int8   user id
-- $2  text   id of the session that asks
-- $3  text   id of the session to end
--
-- Returns one row:
--   is_alive   false: the session that asks is over, and nothing changed
--   ended      false: there is no such session, it is another user's, or it was over
WITH alive AS (
    SELECT user_id FROM sessions
    WHERE id = $2 AND user_id = $1 AND revoked_at IS NULL AND expires_at > now()
), ended AS (
    UPDATE sessions SET revoked_at = now()
    WHERE id = $3 AND user_id = (SELECT user_id FROM alive)
          AND revoked_at IS NULL AND expires_at > now()
    RETURNING id
)
SELECT EXISTS (SELECT FROM alive) AS is_alive, EXISTS (SELECT FROM ended) AS ended
