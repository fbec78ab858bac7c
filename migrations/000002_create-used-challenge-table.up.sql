-- A code is used once because its challenge's id can be inserted once.
CREATE TABLE used_challenges (
    challenge_id text PRIMARY KEY,
    used_at timestamp(0) with time zone NOT NULL DEFAULT now()
);
