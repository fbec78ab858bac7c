-- Stores the pending code of a phone number, in place of an older one, if nothing stands against it:
-- takes from all limits or from none.
--
-- KEYS  1  challenge      the phone's pending code of this kind, a hash: id, digest, purpose, name (of a
--                         sign-up), attempts, expires_at (milliseconds), interval (in which it was
--                         sent; a decoy has none), matched (once it was)
--       2  replaced       the pending code that this one replaces, until it would have expired
--       3  range          conversion of the phone's range
--       4  country        conversion of its country
--       5  revoked        there if this challenge was taken back
--       6… limits
-- ARGV  1  offset         added to the clock, in milliseconds; 0 outside tests
--       2  id             of the new challenge
--       3  digest         of its code
--       4  kind           'code', or 'decoy': it takes the same, and nothing is sent
--       5  purpose        what the code is good for
--       6  name           of the person who signs up; empty for a login
--       7  lifetime       in milliseconds
--       8  watch          'off', 'record' or 'enforce': what is done about low conversion
--       9  min_sent       codes without which conversion is not judged
--      10  min_percent    the conversion that is not low
--      11… limits         count and period
--
-- Answer: {'issued', range, country}         each 'low' or 'good': conversion
--         {'limited', index, microseconds}   which limit, counted from 1, and how long it lasts
--         {'pumped', microseconds}           conversion of the range is low, and that is enforced
--         {'revoked'}                        taken back already; whoever asked has given up

local challenge, replaced, range, country, revoked = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local now = now_with(tonumber(ARGV[1]))
local id, digest, is_decoy = ARGV[2], ARGV[3], ARGV[4] == 'decoy'
local purpose, name, lifetime = ARGV[5], ARGV[6], tonumber(ARGV[7])
local watch, min_sent, min_percent = ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local limits = limits_of(6, #KEYS, 11)

-- A caller that lost the answer asks again with the same id.
if redis.call('HGET', challenge, 'id') == id then
  return {'issued', 'good', 'good'}
end
if redis.call('EXISTS', revoked) == 1 then
  return {'revoked'}
end

local index, wait = exhausted(limits, now)
if index then
  return {'limited', tostring(index), string.format('%.0f', wait)}
end
local low_range = converts_too_little(range, now, lifetime, min_sent, min_percent)
local low_country = converts_too_little(country, now, lifetime, min_sent, min_percent)
if watch == 'off' then
  low_range, low_country = nil, nil
end
if low_range and watch == 'enforce' then
  return {'pumped', string.format('%.0f', low_range)}
end
take(limits, now)

if redis.call('EXISTS', challenge) == 1 then
  redis.call('RENAME', challenge, replaced)
end
redis.call('HSET', challenge, 'id', id, 'digest', digest, 'purpose', purpose, 'name', name,
  'attempts', 0, 'expires_at', string.format('%.0f', now / 1000 + lifetime))
redis.call('PEXPIRE', challenge, lifetime)
if not is_decoy then
  redis.call('HSET', challenge, 'interval', count_sent(range, now, lifetime, 1))
  count_sent(country, now, lifetime, 1)
end
return {'issued', low_range and 'low' or 'good', low_country and 'low' or 'good'}
