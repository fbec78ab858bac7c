#!lua flags=allow-oom
-- Takes a pending code back whose message certainly was not sent, and puts the code that it had
-- replaced in its place again: a request that sends nothing must not void a code that arrived.
--
-- KEYS  1  challenge   the phone's pending code
--       2  replaced    the pending code that it replaced
-- ARGV  1  id          of the challenge to take back
--
-- Answer: 'revoked', or 'absent' when that challenge is not the pending one (any more)

local challenge, replaced = KEYS[1], KEYS[2]
local id = ARGV[1]

if redis.call('HGET', challenge, 'id') ~= id then
  return 'absent'
end
redis.call('DEL', challenge)
if redis.call('EXISTS', replaced) == 1 then
  redis.call('RENAME', replaced, challenge)
end
return 'revoked'
