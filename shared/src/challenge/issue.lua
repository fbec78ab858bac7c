-- Issues a challenge: checks every limit, takes from all or from none, chooses the code's length and
-- stores the challenge. Where a limit refuses, the requester may share a code that is under way already.
--
-- KEYS     1  challenge     by its id
--          2  latest        the id of the phone's newest challenge
--          3  unanswered    what the phone's codes took since its last success, an entry a code
--          4  range         the trust that the phone's range has earned
--          5  misses of the phone     6  misses of the service
--          7… one for each of the limits
-- ARGV[1]  JSON:
--   offset_ms             added to the clock; 0 outside tests
--   id, phone, purpose    of the challenge
--   address               of the requester
--   name                  to register; missing for a login
--   device                the known device that asks; missing if none does
--   codes                 [{length, digest, miss}], shortest first: one code's prefixes, and how much a
--                         wrong code of that length counts
--   lifetime_ms           of the challenge
--   cool_down_us          the time after which a phone may ask again
--   limits                [{kind, count, period_us}]
--   trust                 {count, wait_us} of LIMIT_RANGE; missing if it does not apply
--   misses                {phone, total}, each {count, period_us}; missing if off
--
-- Returns JSON: {"issued": {length, full_misses}}, full_misses: the buckets of misses that are full
--               {"shared": {length, lifetime_ms, wait_us}}: no code is sent, the phone's newest is good
--               for this challenge, and another can be asked for after wait_us
--               {"limited": {kind, wait_us}}
--               "revoked": the requester has given up already
--
-- How a range earns trust. A new range has `count` codes. Each one sent costs one; an answer returns what
-- its phone took, and nine tenths of a code more (check.lua). A range without any gets a single code `wait_us` × 2^strikes
-- after its last, and a strike with it. Otherwise it does not refill. While less than half of the total
-- is left, a range that never answered gets one code per `wait_us` only.

local challenge, latest, unanswered, range = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local day_ms, longest_wait_us = 86400000, 30 * 86400 * 1000000
-- Range trust outlives the longest wait, or that wait would end in a new range's trust.
local range_memory_ms = 60 * day_ms
local remembered_codes = 20
-- A code that is shared has to be good for as long as it takes to read and type it.
local shortest_share_us = 60 * 1000000
-- Which limits an answer refills. The others count codes whether or not they are answered.
local counts_unanswered = { address = true, country = true, total = true }

-- A caller that lost the reply asks again with the same id.
local before = redis.call('HMGET', challenge, 'length', 'revoked', 'shares', 'expires_at')
if before[3] then
  local lifetime_ms = math.max(math.floor((before[4] - now) / 1000), 0)
  return cjson.encode({ shared = { length = tonumber(before[1]), lifetime_ms = lifetime_ms, wait_us = 0 } })
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
local left, strikes
if trust then
  local state = redis.call('HMGET', range, 'left', 'strikes', 'last', 'answered')
  left, strikes = tonumber(state[1] or trust.count), tonumber(state[2] or 0)
  local last, has_answered = tonumber(state[3] or 0), state[4]
  local open_at = 0
  if left < 1 then
    open_at = last + math.min(trust.wait_us * 2 ^ strikes, longest_wait_us)
  elseif not has_answered then
    for _, limit in ipairs(limits) do
      if limit.kind == 'total' then
        -- When half of the total will be left, if nothing more is taken.
        local half_left_at = limit.full_at - limit.period_us / 2
        open_at = math.max(open_at, math.min(last + trust.wait_us, half_left_at))
      end
    end
  end
  if open_at - now > wait then
    kind, wait = 'range', open_at - now
  end
end

-- A full bucket of misses makes codes one step longer, and two steps when it is so many times full.
-- Known devices keep their short codes: strangers cannot ask in their name.
local two_steps_from = { phone = 2, total = 1.25 }
local longer, full_misses = 0, {}
for i, whose in ipairs({ 'phone', 'total' }) do
  local bucket = arguments.misses[whose]
  if bucket and not arguments.device then
    with_state(bucket, nil, stored[i])
    if is_full(bucket, 1) then
      table.insert(full_misses, whose)
      longer = math.max(longer, is_full(bucket, two_steps_from[whose]) and 2 or 1)
    end
  end
end
local codes = arguments.codes
local place = math.min(1 + longer, #codes)
local code = codes[place]

-- A stranger who exhausts a phone's limit still has codes sent to its owner. A requester at another
-- address than the newest code's may share that code: they get a challenge of their own, with an id that
-- nobody else knows and attempts of their own. The code is still used once, and compared in its own
-- challenge. Sharing costs one of the address's limit. It is refused where a new code would be longer, so
-- that it brings nobody more guesses at a short code, and it is not for known devices or their codes.
-- While the service's bucket of misses is twice full, nobody shares, or attempts at one long code would
-- have no end.
local function share_newest_code()
  local of_service = arguments.misses.total
  local newest = kind == 'phone' and wait > arguments.cool_down_us
    and not (of_service and is_full(of_service, 2)) and redis.call('GET', latest)
  local of_address = {}
  for _, limit in ipairs(limits) do
    if limit.kind == 'address' then
      table.insert(of_address, limit)
    end
  end
  if not newest or #of_address == 0 or exhausted(of_address) then
    return nil
  end
  local fields = redis.call('HMGET', '{otp}:challenge:' .. newest, 'length', 'place', 'asked_from',
    'expires_at', 'matched', 'device')
  local expires_at = tonumber(fields[4] or 0)
  if expires_at - now < shortest_share_us or fields[5] or fields[3] == arguments.address
      or fields[6] ~= '' or tonumber(fields[2]) < place then
    return nil
  end
  for _, limit in ipairs(of_address) do
    take(limit, 1)
  end
  redis.call('HSET', challenge,
    'phone', arguments.phone, 'purpose', arguments.purpose, 'name', arguments.name or '',
    'length', fields[1], 'shares', newest, 'expires_at', fields[4])
  redis.call('PEXPIRE', challenge, math.ceil((expires_at - now) / 1000))
  return cjson.encode({ shared = {
    length = tonumber(fields[1]), lifetime_ms = math.floor((expires_at - now) / 1000),
    wait_us = math.ceil(wait),
  } })
end

if kind then
  return share_newest_code() or cjson.encode({ limited = { kind = kind, wait_us = math.ceil(wait) } })
end

local took = {}
for _, limit in ipairs(limits) do
  take(limit, 1)
  if counts_unanswered[limit.kind] then
    table.insert(took, { limit.key, limit.step })
  end
end
local took_strike = false
if trust then
  if left >= 1 then
    left = left - 1
  else
    strikes, took_strike = strikes + 1, true
  end
  redis.call('HSET', range, 'left', left, 'strikes', strikes, 'last', string.format('%.0f', now))
  redis.call('PEXPIRE', range, range_memory_ms)
end

local entry = ''
if not arguments.device then
  entry = cjson.encode({ limits = took, range = trust ~= nil })
  if redis.call('LPUSH', unanswered, entry) > remembered_codes then
    redis.call('LTRIM', unanswered, 0, remembered_codes - 1)
  end
  redis.call('PEXPIRE', unanswered, day_ms)
end
local previous = redis.call('SET', latest, arguments.id, 'PX', arguments.lifetime_ms, 'GET')
redis.call('HSET', challenge,
  'phone', arguments.phone, 'purpose', arguments.purpose, 'name', arguments.name or '',
  'device', arguments.device or '', 'digest', code.digest, 'length', code.length, 'miss', code.miss,
  'place', place, 'lengths', #codes,
  'asked_from', arguments.address, 'took', entry, 'took_strike', took_strike and 1 or 0,
  'previous', previous or '',
  'expires_at', string.format('%.0f', now + arguments.lifetime_ms * 1000))
redis.call('PEXPIRE', challenge, arguments.lifetime_ms)
return cjson.encode({ issued = { length = code.length, full_misses = #full_misses > 0 and full_misses or nil } })
