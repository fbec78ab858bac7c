-- Takes a pending code back whose message certainly was not sent, with all that it took. The code that
-- it had replaced is put in its place again: a request that sends nothing must not void a code that
-- arrived.
--
-- KEYS  1  challenge   the phone's pending code of that kind
--       2  replaced    the pending code that it replaced
--       3  range       conversion of the phone's range
--       4  country     conversion of its country
--       5  revoked     remembers the challenge: a request to issue it may be on its way still
--       6… limits      from which the challenge took
-- ARGV  1  offset      added to the clock, in milliseconds; 0 outside tests
--       2  id          of the challenge to take back
--       3… limits      count and period
--
-- Answer: {'revoked'}, or {'absent'} when that challenge is not there (any more)

local challenge, replaced, range, country = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now = now_with(tonumber(ARGV[1]))
local revoked, id = KEYS[5], ARGV[2]

local held_by
for _, key in ipairs({ challenge, replaced }) do
  if redis.call('HGET', key, 'id') == id then
    held_by = key
  end
end
redis.call('SET', revoked, 1, 'EX', 600)
if not held_by then
  return {'absent'}
end

local interval = redis.call('HGET', held_by, 'interval')
if interval then
  redis.call('HINCRBY', range, 's' .. interval, -1)
  redis.call('HINCRBY', country, 's' .. interval, -1)
end
redis.call('DEL', held_by)
if held_by == challenge and redis.call('EXISTS', replaced) == 1 then
  redis.call('RENAME', replaced, challenge)
end
give_back(limits_of(6, #KEYS, 3), now)
return {'revoked'}
