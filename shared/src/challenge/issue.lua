-- Issues a challenge: checks every limit, takes from all or from none, chooses the code's length
-- and stores the challenge. If the phone's limit refuses, the requester may share the code that was
-- sent last; that takes from the address's limit alone.
--
-- KEYS     1  challenge     by its id
--          2  latest        the id of the phone's newest challenge
--          3  unanswered    the charges of the phone's codes since its last success
--          4  range         the trust that the phone's range has earned
--          5  misses of the phone     6  misses of the service
--          7… the limits, in the order of `limits`
-- ARGV[1]  JSON:
--   offset_ms             added to the clock; 0 outside tests
--   id, phone, purpose    of the challenge
--   address               of the requester
--   name                  to register; missing if nobody will be registered
--   user_id               of the user who gets the number; missing if that depends on who has it
--   device                the known device of the requester; missing if there is none
--   codes                 [{length, digest, weight}], shortest first: the prefixes of one code, and the
--                         weight of a wrong code of that length
--   is_test               true for a test number, whose code is not sent
--   lifetime_ms           of the challenge
--   cool_down_us          the least time between two codes for a phone
--   limits                [{kind, step_us, period_us}]
--   trust                 {count, wait_us} of LIMIT_RANGE; missing if it does not apply
--   misses                {phone, total}, each {step_us, period_us}; missing if off
--
-- Returns JSON: {"issued": {length, full_misses}}    full_misses: the full buckets of misses
--               {"shared": {length, lifetime_ms, wait_us}}    no code is sent: the challenge shares
--                   the phone's newest; another can be requested after wait_us
--               {"limited": {kind, wait_us}}
--               "revoked": this call arrived after its revocation
--
-- How a range earns trust. A new range has `count` codes. Each one sent costs one. An answer
-- refunds its phone's codes and earns nine tenths of a code (check.lua). A range with none left
-- gets a single code `wait_us` × 2^strikes after its last, and a strike with it. A revocation
-- refunds one; there is no other refill. While less than half of the total is left, a range that
-- never answered gets one code per `wait_us` only.

local challenge, latest, unanswered, range = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local longest_wait_us = 30 * 86400 * 1000000
local unanswered_codes = 20
-- A shared code must be valid for long enough to read and type it.
local shortest_share_us = 60 * 1000000
-- These limits count unanswered codes only: an answer refunds them. The others count all codes.
local is_refunded = { address = true, country = true, total = true }

-- A caller that lost the reply repeats the call with the same id.
local before = redis.call('HMGET', challenge, 'length', 'revoked', 'shares', 'expires_at', 'retry_at')
if before[3] then
  local lifetime_us, wait_us = math.max(before[4] - now, 0), math.max(before[5] - now, 0)
  return cjson.encode({ shared = {
    length = tonumber(before[1]), lifetime_ms = math.floor(lifetime_us / 1000), wait_us = wait_us,
  } })
elseif before[1] then
  return cjson.encode({ issued = { length = tonumber(before[1]) } })
elseif before[2] then
  return '"revoked"'
end

local stored = redis.call('MGET', unpack(KEYS, 5))
local limits = arguments.limits
for i, limit in ipairs(limits) do
  with_state(limit, KEYS[6 + i], stored[2 + i])
end
local kind, wait = exhausted(limits)

local trust = arguments.trust
local left, strikes, last
if trust then
  local state = redis.call('HMGET', range, 'left', 'strikes', 'last', 'answered')
  left, strikes = tonumber(state[1] or trust.count), tonumber(state[2] or 0)
  last = tonumber(state[3] or 0)
  local has_answered, range_opens_at = state[4], 0
  if left < 1 then
    range_opens_at = last + math.min(trust.wait_us * 2 ^ strikes, longest_wait_us)
  elseif not has_answered then
    for _, limit in ipairs(limits) do
      if limit.kind == 'total' then
        -- The time at which half of the total is left, if nothing more is taken.
        local half_left_at = limit.refilled_at - limit.period_us / 2
        range_opens_at = math.max(range_opens_at, math.min(last + trust.wait_us, half_left_at))
      end
    end
  end
  if range_opens_at - now > wait then
    kind, wait = 'range', range_opens_at - now
  end
end

-- The code's tier, 1 the shortest. A full bucket of misses raises it by one, and by two from this
-- many times its count. Known devices keep short codes: strangers cannot send requests in their
-- name.
local two_tiers_from = { phone = 2, total = 1.25 }
local tier, full_misses = 1, {}
for i, whose in ipairs({ 'phone', 'total' }) do
  local bucket = arguments.misses[whose]
  if bucket and not arguments.device then
    with_state(bucket, nil, stored[i])
    if is_full(bucket, 1) then
      table.insert(full_misses, whose)
      tier = math.max(tier, is_full(bucket, two_tiers_from[whose]) and 3 or 2)
    end
  end
end
local codes = arguments.codes
tier = math.min(tier, #codes)
local code = codes[tier]

-- When a stranger has exhausted a phone's limit, its owner still receives the codes. A requester at
-- another address than the newest code's may share that code: they get a challenge of their own,
-- with a secret id and its own attempts. The code is still used once. Sharing takes one of the
-- address's limit.
--
-- Sharing gives nobody more guesses. It is refused where a new code would be longer, so short codes
-- are not shared during an attack. It is also refused once the service's misses reach twice
-- MISSES_TOTAL, which bounds the attempts at a long code. Known devices and their codes never
-- share, nor does a change of number: it sends a message to the old number.
local of_service = arguments.misses.total
if kind == 'phone' and not arguments.user_id and wait > arguments.cool_down_us
    and not (of_service and is_full(of_service, 2)) then
  local of_address = {}
  for _, limit in ipairs(limits) do
    if limit.kind == 'address' then
      table.insert(of_address, limit)
    end
  end
  local newest = #of_address > 0 and not exhausted(of_address) and redis.call('GET', latest)
  local fields = newest and redis.call('HMGET', '{otp}:challenge:' .. newest, 'length', 'tier',
    'requester_address', 'expires_at', 'matched', 'device') or {}
  local expires_at = tonumber(fields[4] or 0)
  if expires_at - now >= shortest_share_us and not fields[5] and fields[3] ~= arguments.address
      and fields[6] == '' and tonumber(fields[2]) >= tier then
    for _, limit in ipairs(of_address) do
      take(limit, 1)
    end
    redis.call('HSET', challenge,
      'phone', arguments.phone, 'purpose', arguments.purpose, 'name', arguments.name or '',
      'user_id', '', 'length', fields[1], 'shares', newest, 'expires_at', fields[4],
      'retry_at', string.format('%d', now + wait))
    redis.call('PEXPIRE', challenge, math.ceil((expires_at - now) / 1000))
    return cjson.encode({ shared = {
      length = tonumber(fields[1]), lifetime_ms = math.floor((expires_at - now) / 1000),
      wait_us = math.ceil(wait),
    } })
  end
end

if kind then
  return cjson.encode({ limited = { kind = kind, wait_us = math.ceil(wait) } })
end

local refundable = {}
for _, limit in ipairs(limits) do
  take(limit, 1)
  if is_refunded[limit.kind] then
    table.insert(refundable, { limit.key, limit.step_us })
  end
end
local last_before_strike = ''
if trust then
  if left >= 1 then
    left = left - 1
  else
    strikes, last_before_strike = strikes + 1, string.format('%d', last)
  end
  redis.call('HSET', range, 'left', left, 'strikes', strikes, 'last', string.format('%d', now))
  redis.call('EXPIRE', range, range_memory_s)
end

-- {limits: [[key, step_us]], range: whether it took one of the range's codes}
local charges = ''
if not arguments.device then
  charges = cjson.encode({ limits = refundable, range = trust ~= nil })
  if redis.call('LPUSH', unanswered, charges) > unanswered_codes then
    redis.call('LTRIM', unanswered, 0, unanswered_codes - 1)
  end
  redis.call('EXPIRE', unanswered, unanswered_memory_s)
end
local previous = redis.call('SET', latest, arguments.id, 'PX', arguments.lifetime_ms, 'GET')
redis.call('HSET', challenge,
  'phone', arguments.phone, 'purpose', arguments.purpose, 'name', arguments.name or '',
  'user_id', arguments.user_id or '', 'device', arguments.device or '',
  'is_test', arguments.is_test and 1 or '', 'digest', code.digest, 'length', code.length,
  'weight', code.weight, 'tier', tier, 'tiers', #codes, 'requester_address', arguments.address,
  'charges', charges, 'last_before_strike', last_before_strike, 'previous', previous or '',
  'expires_at', string.format('%d', now + arguments.lifetime_ms * 1000))
redis.call('PEXPIRE', challenge, arguments.lifetime_ms)
return cjson.encode({ issued = { length = code.length, full_misses = #full_misses > 0 and full_misses or nil } })
