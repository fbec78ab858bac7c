-- Compares a code with what is pending and counts it if it is wrong: for the challenge, for the phone
-- and for the client's address. A right code costs nothing and stays: Postgres decides whether it was
-- used before.
--
-- KEYS  1  signup         the pending code that a sign-up asked for
--       2  login          the pending code that a login asked for
--       3  range          conversion of the phone's range
--       4  country        conversion of its country
--       5… failures       the limits of wrong codes per phone, across challenges
--        … guesses        the limits of wrong codes per client address
-- ARGV  1  offset         added to the clock, in milliseconds; 0 outside tests
--       2  max_attempts   how many wrong codes one challenge takes
--       3  id             of the challenge that the caller means; empty: whatever is pending
--       4  failures       how many of the keys they are
--       5… limits         count and period, of the failures and then of the guesses
--        … digests        of the code under every live pepper
--
-- Answer: {'absent'}                         nothing pending, expired, or another id
--         {'limited', index, microseconds}   which limit of the guesses, counted from 1, and how long
--         {'exhausted', microseconds}        no attempts left for what is meant or for this phone
--         {'matched', id, purpose, name, which}
--                                            'first' match of this challenge, or 'again'
--         {'mismatch', remaining}            counted; so many attempts are left
--
-- The digests are keyed with a secret that callers don't know, so how long the comparison takes
-- tells them nothing.

local range, country = KEYS[3], KEYS[4]
local now = now_with(tonumber(ARGV[1]))
local max_attempts, expected_id, failures_count = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local failures = limits_of(5, 4 + failures_count, 5)
local guesses = limits_of(5 + failures_count, #KEYS, 5 + 2 * failures_count)
local first_digest = 5 + 2 * (#failures + #guesses)

-- What is meant, and how much of that takes no more attempts until when.
local is_pending, open, closed_until = false, {}, now
for _, key in ipairs({ KEYS[1], KEYS[2] }) do
  local fields = redis.call('HMGET', key,
    'id', 'digest', 'purpose', 'name', 'attempts', 'expires_at', 'interval')
  local challenge = {
    key = key, id = fields[1], digest = fields[2], purpose = fields[3], name = fields[4],
    attempts = tonumber(fields[5] or 0), expires_at = (fields[6] or 0) * 1000, interval = fields[7],
  }
  local is_meant = expected_id == '' or expected_id == challenge.id
  if challenge.id and now < challenge.expires_at and is_meant then
    is_pending = true
    if challenge.attempts < max_attempts then
      table.insert(open, challenge)
    else
      closed_until = math.max(closed_until, challenge.expires_at)
    end
  end
end

if not is_pending then
  return {'absent'}
end
local index, wait = exhausted(guesses, now)
if index then
  return {'limited', tostring(index), string.format('%.0f', wait)}
end
index, wait = exhausted(failures, now)
if #open == 0 then
  index, wait = 0, math.max(wait, closed_until - now)
end
if index then
  return {'exhausted', string.format('%.0f', wait)}
end

for i = first_digest, #ARGV do
  for _, challenge in ipairs(open) do
    if ARGV[i] == challenge.digest then
      -- Only the first match: whoever replays a used code must not get failures forgiven for it.
      local is_first = redis.call('HSETNX', challenge.key, 'matched', 1) == 1
      if is_first then
        redis.call('HINCRBY', range, 'v' .. challenge.interval, 1)
        redis.call('HINCRBY', country, 'v' .. challenge.interval, 1)
        for _, limit in ipairs(failures) do
          redis.call('DEL', limit.key)
        end
      end
      return {'matched', challenge.id, challenge.purpose, challenge.name, is_first and 'first' or 'again'}
    end
  end
end
local remaining = 0
for _, challenge in ipairs(open) do
  local attempts = redis.call('HINCRBY', challenge.key, 'attempts', 1)
  remaining = math.max(remaining, max_attempts - attempts)
end
take(failures, now)
take(guesses, now)
return {'mismatch', tostring(remaining)}
