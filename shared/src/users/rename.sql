-- Changes a user's name, if the session is alive and the version is the current one.
--
-- $1  int8   user id
-- $2  text   session id
-- $3  text   name
-- $4  int4   version that the client has seen
--
-- Returns one row:
--   is_alive                                        false: the session is over, and nothing changed
--   id, created_at, name, phone_number, version     of the user now; NULL if nothing changed
WITH alive AS (
    SELECT user_id FROM sessions
    WHERE id = $2 AND user_id = $1 AND revoked_at IS NULL AND expires_at > now()
), renamed AS (
    -- Of two that race, the second waits for the row's lock and then finds another version.
    UPDATE users SET name = $3, version = version + 1
    WHERE id = (SELECT user_id FROM alive) AND version = $4
    RETURNING id, created_at, name, phone_number, version
)
SELECT EXISTS (SELECT FROM alive) AS is_alive,
       id, name, phone_number, version,
       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS created_at
FROM (VALUES (1)) AS always LEFT JOIN renamed ON true
