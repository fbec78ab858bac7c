-- Revokes a challenge whose message certainly was not sent. It gives back what was taken from the range,
-- the country and the total; not from the phone, the address or the device, or a number that the
-- provider rejects could be asked for without end.
--
-- KEYS     1  challenge     by its id
--          2  latest        the id of the phone's newest challenge
--          3  revoked       remembers the challenge: its issue may still be on its way
--          4  unanswered    what the phone's codes took since its last success
--          5  range         the trust that the phone's range has earned
--          6… one for each of the limits
-- ARGV[1]  JSON:
--   offset_ms   added to the clock; 0 outside tests
--   id          of the challenge
--   limits      [{kind, count, period_us}] that it took from
--
-- Returns JSON: "revoked", or "absent" when that challenge is not there (any more)

local challenge, latest, revoked, unanswered, range = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local is_given_back = { country = true, total = true, range_max = true, total_max = true }

redis.call('SET', revoked, 1, 'EX', 600)
local state = redis.call('HMGET', challenge, 'took', 'took_strike', 'previous')
local took, took_strike, previous = state[1], state[2] == '1', state[3]
if not took then
  return '"absent"'
end

for i, limit in ipairs(arguments.limits) do
  if is_given_back[limit.kind] then
    local key = KEYS[5 + i]
    take(with_state(limit, key, redis.call('GET', key)), -1)
  end
end

-- What the phone still owes after this is the address's share alone. An answer to another code of it
-- before this refusal has returned the entry whole.
if took ~= '' and redis.call('LREM', unanswered, 1, took) == 1 then
  local entry = cjson.decode(took)
  if entry.range then
    redis.call('HINCRBY', range, 'left', 1)
    if took_strike then
      redis.call('HINCRBY', range, 'strikes', -1)
    end
  end
  local address = {}
  for _, pair in ipairs(entry.limits) do
    if pair[1]:find('{otp}:limit:address:', 1, true) == 1 then
      table.insert(address, pair)
    end
  end
  redis.call('LPUSH', unanswered, cjson.encode({ limits = address, range = false }))
  redis.call('PEXPIRE', unanswered, 86400000)
end

redis.call('DEL', challenge)
if redis.call('GET', latest) == arguments.id then
  local lifetime = redis.call('PTTL', '{otp}:challenge:' .. previous)
  if lifetime > 0 then
    redis.call('SET', latest, previous, 'PX', lifetime)
  else
    redis.call('DEL', latest)
  end
end
return '"revoked"'
