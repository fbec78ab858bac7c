-- Uses a challenge; then registers or finds its user and opens a session, if its purpose allows. A
-- challenge that was used before changes nothing.
--
-- $1  text    challenge id
-- $2  text    purpose: signup, login or signup_or_login
-- $3  text    name to register; NULL for a login
-- $4  text    phone number, E.164
-- $5  text    session id
-- $6  bytea   digest of the session's refresh token
-- $7  int4    days until the session expires
--
-- Returns one row:
--   first_use   false: the challenge was used before, and nothing changed
--   auth_time   seconds since 1970
--   is_new      true: registered; false: found; NULL: no user, no session
--   id, created_at, name, phone_number, version     of the user
WITH used AS (
    INSERT INTO used_challenges (challenge_id)
    VALUES ($1)
    ON CONFLICT (challenge_id) DO NOTHING
    RETURNING challenge_id
), signed_up AS (
    -- The no-op DO UPDATE exists to return a row inserted after our snapshot; xmax = 0 marks our
    -- own insert.
    INSERT INTO users (name, phone_number)
    SELECT $3, $4 FROM used WHERE $2 IN ('signup', 'signup_or_login')
    ON CONFLICT (phone_number) DO UPDATE SET phone_number = EXCLUDED.phone_number
        WHERE $2 = 'signup_or_login'
    RETURNING id, created_at, name, phone_number, version, xmax = 0 AS is_new
), logged_in AS (
    -- KEY SHARE waits for a concurrent delete of the user.
    SELECT id, created_at, name, phone_number, version, false
    FROM users
    WHERE phone_number = $4 AND $2 = 'login' AND EXISTS (SELECT FROM used)
    FOR KEY SHARE
), signed_in AS (
    SELECT * FROM signed_up UNION ALL SELECT * FROM logged_in
), opened AS (
    INSERT INTO sessions (id, user_id, token_digest, created_at, expires_at)
    SELECT $5, id, $6, now(), now() + make_interval(days => $7) FROM signed_in
)
SELECT EXISTS (SELECT FROM used) AS first_use,
       floor(extract(epoch FROM now()))::int8 AS auth_time,
       is_new, id, name, phone_number, version,
       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS created_at
FROM (VALUES (1)) AS always LEFT JOIN signed_in ON true
