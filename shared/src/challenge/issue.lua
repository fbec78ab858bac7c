#!lua
-- Stores the pending code of a phone number, in place of an older one.
--
-- KEYS  1  challenge   the phone's pending code (hash: id, digest, name, attempts, expires_at)
--       2  replaced    the pending code that this one replaces, until it would have expired
-- ARGV  1  id          of the new challenge
--       2  digest      of its code
--       3  name        of the person who signs up
--       4  lifetime    in milliseconds
--       5  offset      added to the clock, in milliseconds; 0 outside tests
--
-- Answer: 'issued'
--
-- With its first line Redis refuses this script as a whole when it is out of memory, instead of
-- failing at one of its writes.

local challenge, replaced = KEYS[1], KEYS[2]
local id, digest, name = ARGV[1], ARGV[2], ARGV[3]
local lifetime, offset = tonumber(ARGV[4]), tonumber(ARGV[5])

-- A caller that lost the answer asks again with the same id.
if redis.call('HGET', challenge, 'id') == id then
  return 'issued'
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) + offset

if redis.call('EXISTS', challenge) == 1 then
  redis.call('RENAME', challenge, replaced)
end
redis.call('HSET', challenge, 'id', id, 'digest', digest, 'name', name,
  'attempts', 0, 'expires_at', now + lifetime)
redis.call('PEXPIRE', challenge, lifetime)
return 'issued'
