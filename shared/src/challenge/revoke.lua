-- Revokes a challenge whose message certainly was not sent, and refunds the range, the country, the
-- total and the ceilings. Not the phone, the address and the device: otherwise a number that the
-- provider rejects could be requested without end.
--
-- KEYS     1  challenge     by its id; remembers the revocation, since its issue may still arrive
--          2  latest        the id of the phone's newest challenge
--          3  unanswered    the charges of the phone's codes since its last success
--          4  range         the trust that the phone's range has earned
--          5… the limits, in the order of `limits`
--          The keys of the phone's earlier challenges are built here, with the tag {otp}.
-- ARGV[1]  JSON:
--   offset_ms   added to the clock; 0 outside tests
--   id          of the challenge
--   limits      [{kind, step_us, period_us}] of its issue
--
-- Returns JSON: "revoked", or "absent" if there is nothing to refund: no such challenge (any more),
--               or one that shares a code

local challenge, latest, unanswered, range = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local is_refunded = { country = true, total = true }
local is_ceiling = { range_max = true, total_max = true }
-- Longer than any request that still is on its way.
local revoked_memory_s = 600

-- A challenge that shares a code has no charges to refund.
local state = redis.call('HMGET', challenge, 'charges', 'last_before_strike', 'previous')
local charges, last_before_strike, previous = state[1], state[2], state[3]
redis.call('DEL', challenge)
redis.call('HSET', challenge, 'revoked', 1, 'previous', previous or '')
redis.call('EXPIRE', challenge, revoked_memory_s)
if not charges then
  return '"absent"'
end

-- An answer to another code of the phone may have refunded this code's charges already.
local is_owed = charges ~= '' and redis.call('LREM', unanswered, 1, charges) == 1
for i, limit in ipairs(arguments.limits) do
  if is_ceiling[limit.kind] or is_owed and is_refunded[limit.kind] then
    local key = KEYS[4 + i]
    take(with_state(limit, key, redis.call('GET', key)), -1)
  end
end
if is_owed then
  local charge = cjson.decode(charges)
  if charge.range and redis.call('EXISTS', range) == 1 then
    if last_before_strike == '' then
      redis.call('HINCRBYFLOAT', range, 'left', 1)
    else
      -- A closed range admitted it: its wait goes on as before.
      local strikes = tonumber(redis.call('HGET', range, 'strikes') or 0)
      redis.call('HSET', range, 'strikes', math.max(strikes - 1, 0), 'last', last_before_strike)
    end
  end
  -- A later answer still refunds the address.
  local of_address = {}
  for _, pair in ipairs(charge.limits) do
    if pair[1]:find('{otp}:limit:address:', 1, true) == 1 then
      table.insert(of_address, pair)
    end
  end
  redis.call('LPUSH', unanswered, cjson.encode({ limits = of_address, range = false }))
  redis.call('EXPIRE', unanswered, unanswered_memory_s)
end

-- The newest challenge is now the previous one that is not revoked.
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
