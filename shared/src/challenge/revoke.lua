-- Revokes a challenge whose message certainly was not sent. It gives back what was taken from the range,
-- the country and the total; not from the phone, the address or the device, or a number that the
-- provider rejects could be asked for without end.
--
-- KEYS     1  challenge     by its id; remembers that it is revoked, since its issue may be on its way
--          2  latest        the id of the phone's newest challenge
--          3  unanswered    what the phone's codes took since its last success
--          4  range         the trust that the phone's range has earned
--          5… one for each of the limits
-- ARGV[1]  JSON:
--   offset_ms   added to the clock; 0 outside tests
--   id          of the challenge
--   limits      [{kind, count, period_us}] that it took from
--
-- Returns JSON: "revoked", or "absent" when that challenge is not there (any more)

local challenge, latest, unanswered, range = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local is_given_back = { country = true, total = true }
local is_ceiling = { range_max = true, total_max = true }

-- A challenge that shares a code has taken nothing that could be given back, and holds no `took`.
local state = redis.call('HMGET', challenge, 'took', 'took_strike', 'previous')
local took, took_strike, previous = state[1], state[2] == '1', state[3]
redis.call('DEL', challenge)
redis.call('HSET', challenge, 'revoked', 1, 'previous', previous or '')
redis.call('EXPIRE', challenge, 600)
if not took then
  return '"absent"'
end

-- If an answer to another code of the phone came first, it has returned this code's share already.
local is_owed = took ~= '' and redis.call('LREM', unanswered, 1, took) == 1
for i, limit in ipairs(arguments.limits) do
  if is_ceiling[limit.kind] or is_owed and is_given_back[limit.kind] then
    local key = KEYS[4 + i]
    take(with_state(limit, key, redis.call('GET', key)), -1)
  end
end
if is_owed then
  local entry = cjson.decode(took)
  if entry.range then
    redis.call('HINCRBYFLOAT', range, 'left', 1)
    if took_strike and tonumber(redis.call('HGET', range, 'strikes') or 0) > 0 then
      redis.call('HINCRBY', range, 'strikes', -1)
    end
  end
  -- An answer will still return the address's share.
  local address = {}
  for _, pair in ipairs(entry.limits) do
    if pair[1]:find('{otp}:limit:address:', 1, true) == 1 then
      table.insert(address, pair)
    end
  end
  redis.call('LPUSH', unanswered, cjson.encode({ limits = address, range = false }))
  redis.call('PEXPIRE', unanswered, 86400000)
end

-- The newest is now the one before it, or the one before that if it was revoked too.
if redis.call('GET', latest) == arguments.id then
  local key, is_revoked
  repeat
    key = '{otp}:challenge:' .. previous
    is_revoked = redis.call('HGET', key, 'revoked')
    if is_revoked then
      previous = redis.call('HGET', key, 'previous')
    end
  until not is_revoked
  local lifetime = redis.call('PTTL', key)
  if lifetime > 0 then
    redis.call('SET', latest, previous, 'PX', lifetime)
  else
    redis.call('DEL', latest)
  end
end
return '"revoked"'
