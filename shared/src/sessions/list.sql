-- Lists the sessions of a user that are alive, the newest first.
--
-- $1  int8   user id
-- $2  text   id of the session that asks
--
-- Returns one row for each, and none if the session that asks is over:
--   id
--   created_at, refreshed_at   RFC 3339 in UTC; refreshed_at as created_at before the first refresh
--   current                    true for the session that asks
WITH alive AS (
    SELECT id, created_at, refreshed_at FROM sessions
    WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > now()
)
SELECT id, id = $2 AS current,
       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS created_at,
       to_char(refreshed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS refreshed_at
FROM alive
WHERE EXISTS (SELECT FROM alive WHERE id = $2)
ORDER BY alive.created_at DESC, id
