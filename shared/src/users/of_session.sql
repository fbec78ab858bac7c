-- The user of a session.
--
-- $1  int8   user id
-- $2  text   session id
--
-- Returns one row, all NULL if the session is over or belongs to another user:
--   id, created_at, name, phone_number, version
WITH alive AS (
    SELECT user_id FROM sessions
    WHERE id = $2 AND user_id = $1 AND revoked_at IS NULL AND expires_at > now()
)
SELECT id, name, phone_number, version,
       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS created_at
FROM (VALUES (1)) AS always LEFT JOIN (alive JOIN users ON users.id = alive.user_id) ON true
