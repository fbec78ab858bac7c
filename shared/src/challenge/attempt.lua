-- Compares a code with the pending one and counts it if it is wrong: for the challenge, for the phone
-- and for the client's address. A right code costs nothing and stays: Postgres decides whether it was
-- used before.
--
-- KEYS  1  challenge      the phone's pending code
--       2  range          conversion of the phone's range
--       3  country        conversion of its country
--       4… failures       the limits of wrong codes per phone, across challenges
--        … guesses        the limits of wrong codes per client address
-- ARGV  1  offset         added to the clock, in milliseconds; 0 outside tests
--       2  max_attempts   how many wrong codes one challenge takes
--       3  id             of the challenge that the caller means; empty: whichever is pending
--       4  failures       how many of the keys they are
--       5… limits         count and period, of the failures and then of the guesses
--        … digests        of the code under every live pepper
--
-- Answer: {'absent'}                         nothing pending, expired, or another id
--         {'limited', index, microseconds}   which limit of the guesses, counted from 1, and how long
--         {'exhausted', microseconds}        no attempts left for this code or this phone
--         {'matched', id, name, which}       'first' match of this challenge, or 'again'
--         {'mismatch', remaining}            counted; so many attempts are left for this code
--
-- The digests are keyed with a secret that callers don't know, so how long the comparison takes
-- tells them nothing.

local challenge, range, country = KEYS[1], KEYS[2], KEYS[3]
local now = now_with(tonumber(ARGV[1]))
local max_attempts, expected_id, failures_count = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local failures = limits_of(4, 3 + failures_count, 5)
local guesses = limits_of(4 + failures_count, #KEYS, 5 + 2 * failures_count)
local first_digest = 5 + 2 * (#failures + #guesses)

local fields = redis.call('HMGET', challenge,
  'id', 'digest', 'name', 'attempts', 'expires_at', 'interval')
local id, digest, name, interval = fields[1], fields[2], fields[3], fields[6]
local attempts = tonumber(fields[4])
local expires_at = id and fields[5] * 1000

if not id or now >= expires_at or (expected_id ~= '' and expected_id ~= id) then
  return {'absent'}
end
local index, wait = exhausted(guesses, now)
if index then
  return {'limited', tostring(index), string.format('%.0f', wait)}
end
index, wait = exhausted(failures, now)
if attempts >= max_attempts then
  index, wait = 0, math.max(wait, expires_at - now)
end
if index then
  return {'exhausted', string.format('%.0f', wait)}
end

for i = first_digest, #ARGV do
  if ARGV[i] == digest then
    -- Only the first match: whoever replays a used code must not get failures forgiven for it.
    local is_first = redis.call('HSETNX', challenge, 'matched', 1) == 1
    if is_first then
      redis.call('HINCRBY', range, 'v' .. interval, 1)
      redis.call('HINCRBY', country, 'v' .. interval, 1)
      for _, limit in ipairs(failures) do
        redis.call('DEL', limit.key)
      end
    end
    return {'matched', id, name, is_first and 'first' or 'again'}
  end
end
redis.call('HINCRBY', challenge, 'attempts', 1)
take(failures, now)
take(guesses, now)
return {'mismatch', tostring(max_attempts - attempts - 1)}
