-- Uses a challenge, gives its number to the user of a session, and ends the user's other sessions.
--
-- $1  int8   user id
-- $2  text   session id
-- $3  text   challenge id
-- $4  text   phone number, E.164
--
-- Returns one row:
--   is_alive    false: the session is over, and nothing changed
--   first_use   false: the challenge was used before, and nothing changed
--   id, created_at, name, phone_number, version     of the user now; NULL if a user has the number,
--                                                   who may be the same one
--
-- If the number is registered meanwhile, it fails with a unique violation and changes nothing.
WITH alive AS (
    SELECT user_id FROM sessions
    WHERE id = $2 AND user_id = $1 AND revoked_at IS NULL AND expires_at > now()
), used AS (
    INSERT INTO used_challenges (challenge_id)
    SELECT $3 FROM alive
    ON CONFLICT (challenge_id) DO NOTHING
    RETURNING challenge_id
), changed AS (
    -- The lock on the user comes before those on the sessions, as in end_all.sql.
    UPDATE users SET phone_number = $4, version = version + 1
    WHERE id = (SELECT user_id FROM alive) AND EXISTS (SELECT FROM used)
          AND NOT EXISTS (SELECT FROM users WHERE phone_number = $4)
    RETURNING id, created_at, name, phone_number, version
), ended AS (
    UPDATE sessions SET revoked_at = now()
    WHERE user_id = (SELECT id FROM changed) AND id <> $2 AND revoked_at IS NULL
)
SELECT EXISTS (SELECT FROM alive) AS is_alive, EXISTS (SELECT FROM used) AS first_use,
       id, name, phone_number, version,
       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS created_at
FROM (VALUES (1)) AS always LEFT JOIN changed ON true
