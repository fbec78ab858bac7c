#!lua
-- Compares a code with the pending one and counts it if it is wrong. A right code changes nothing:
-- Postgres decides whether it was used before.
--
-- KEYS  1  challenge     the phone's pending code
-- ARGV  1  offset        added to the clock, in milliseconds; 0 outside tests
--       2  max_attempts  how many wrong codes one challenge takes
--       3  id            of the challenge that the caller means; empty: whichever is pending
--       4… digests       of the code under every live pepper
--
-- Answer: {'absent'}                     nothing pending, expired, or another id
--         {'exhausted', milliseconds}    no attempts left until it expires
--         {'matched', id, name}
--         {'mismatch', remaining}        counted; so many attempts are left
--
-- The digests are keyed with a secret that callers don't know, so how long the comparison takes
-- tells them nothing.

local challenge = KEYS[1]
local offset, max_attempts, expected_id = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) + offset

local fields = redis.call('HMGET', challenge, 'id', 'digest', 'name', 'attempts', 'expires_at')
local id, digest, name = fields[1], fields[2], fields[3]
local attempts, expires_at = tonumber(fields[4]), tonumber(fields[5])

if not id or now >= expires_at or (expected_id ~= '' and expected_id ~= id) then
  return {'absent'}
end
if attempts >= max_attempts then
  return {'exhausted', tostring(expires_at - now)}
end
for i = 4, #ARGV do
  if ARGV[i] == digest then
    return {'matched', id, name}
  end
end
redis.call('HINCRBY', challenge, 'attempts', 1)
return {'mismatch', tostring(max_attempts - attempts - 1)}
