-- Checks a submitted code: finds the challenge, compares, counts a wrong code. A right code costs
-- nothing and keeps the challenge: Postgres decides if it was used before.
--
-- KEYS     1  latest        the id of the phone's newest challenge
--          2  unanswered    the charges of the phone's codes since its last success
--          3  range         the trust that the phone's range has earned
--          4  misses of the phone     5  misses of the service
--          6… the limits on guesses, in the order of `guesses`
--          The keys of the challenge and of refunded limits are built here, all with the tag {otp}.
-- ARGV[1]  JSON:
--   offset_ms             added to the clock; 0 outside tests
--   phone, address        of the requester
--   id                    of the challenge; missing: the phone's newest
--   length, digests       of the submitted code; a digest for every live pepper
--   max_attempts          wrong codes that a challenge takes by its id, and again as the newest
--   guesses               [{kind, step_us, period_us}], the limits on checks without an id
--   trust                 {count} of LIMIT_RANGE; missing if off
--   misses                {phone, total}, each {step_us, period_us}; missing if off
--
-- Returns JSON: "absent"                    nothing pending: never issued, expired, revoked, void, or
--                                           of another id or phone
--               "other_length"              the challenge's code has another length; not counted
--               {"limited": {kind, wait_us}}
--               {"exhausted": {wait_us}}    no attempts left
--               {"mismatch": {remaining}}   counted; `remaining` attempts are left
--               {"matched": {id, purpose, name, user_id, device, is_test, is_first}}
--
-- Digests are keyed with a secret that clients don't know, so the time of a comparison reveals
-- nothing.

local latest, unanswered, range = KEYS[1], KEYS[2], KEYS[3]
local most_trust = 20
-- Less than a whole code, so that a range's first answer earns no code yet. An attacker who walks
-- many ranges would get that code in all of them in which one person lives.
local earned_by_answer = 0.9
-- Every answer takes this much off the service's misses, so that a large service keeps short codes.
-- Not an answer to a test number's code: those cost nothing, so they could pay for guesses without
-- end.
local miss_per_answer = 1 / 50
-- From this many times its count on, the service's bucket of misses voids pending codes of tier 1
-- and of tier 2: a quarter beyond the point where issue.lua stops sending them.
local void_from = { 1.25, 1.5 }

local by_id = arguments.id ~= nil
local guesses = arguments.guesses
local stored = redis.call('MGET', unpack(KEYS, 4))
for i, limit in ipairs(guesses) do
  with_state(limit, KEYS[5 + i], stored[2 + i])
end
-- Checked before the lookup: otherwise polling for a pending challenge would be free.
local kind, wait = exhausted(guesses)
if kind then
  return cjson.encode({ limited = { kind = kind, wait_us = math.ceil(wait) } })
end

-- Every reply but a match takes from the limits on guesses.
local function unmatched(reply)
  for _, limit in ipairs(guesses) do
    take(limit, 1)
  end
  return cjson.encode(reply)
end

local id = arguments.id or redis.call('GET', latest)
if not id then
  return unmatched('absent')
end
local key = '{otp}:challenge:' .. id
local wrong_field = by_id and 'wrong_by_id' or 'wrong_as_latest'
local own_wrong_field = by_id and wrong_field or 'wrong_from:' .. arguments.address
local fields = redis.call('HMGET', key, 'phone', 'expires_at', 'purpose', 'name', 'user_id', 'shares',
  wrong_field, own_wrong_field)
local expires_at, purpose, name, user_id = tonumber(fields[2] or 0), fields[3], fields[4], fields[5]
local wrong, own_wrong = tonumber(fields[7] or 0), tonumber(fields[8] or 0)
-- The challenge whose code this is: the one it shares, or itself.
local code_id = fields[6] or id
local code_key = '{otp}:challenge:' .. code_id
local code = redis.call('HMGET', code_key, 'digest', 'length', 'weight', 'device', 'tier', 'tiers',
  'matched', 'charges', 'is_test')
local digest, length, weight, device = code[1], tonumber(code[2]), tonumber(code[3]), code[4]
local tier, tiers, is_matched, charges = tonumber(code[5]), tonumber(code[6]), code[7], code[8]
local is_test = code[9] == '1'
if fields[1] ~= arguments.phone or now >= expires_at or not digest then
  return unmatched('absent')
end
if length ~= arguments.length then
  return unmatched('other_length')
end
if wrong >= arguments.max_attempts then
  return unmatched({ exhausted = { wait_us = math.ceil(expires_at - now) } })
end

-- Only its owner knows the id of a challenge for a known device. Without it anybody can guess.
if device ~= '' and by_id then
  weight = 0
end
local misses = { arguments.misses.phone, arguments.misses.total }
for i = 1, 2 do
  if misses[i] then
    with_state(misses[i], KEYS[3 + i], stored[i])
  end
end
local of_phone, of_service = misses[1], misses[2]
if weight > 0 and not is_matched then
  -- New codes are longer by now. Whoever collected short ones before must not guess at all of them.
  if of_service and tier < tiers and is_full(of_service, void_from[tier]) then
    return unmatched('absent')
  end
  if of_phone and tiers == 1 and is_full(of_phone, 1) then
    return unmatched({ exhausted = { wait_us = math.ceil(wait_for(of_phone)) } })
  end
end

local is_right = false
for _, candidate in ipairs(arguments.digests) do
  is_right = is_right or candidate == digest
end
if not is_right then
  redis.call('HINCRBY', key, wrong_field, 1)
  if not by_id then
    redis.call('HINCRBY', key, own_wrong_field, 1)
  end
  for i = 1, 2 do
    if misses[i] and weight > 0 then
      take(misses[i], weight)
    end
  end
  return unmatched({ mismatch = { remaining = arguments.max_attempts - wrong - 1 } })
end

-- Only the first match refunds anything: a replayed code must not.
if not is_matched then
  redis.call('HSET', code_key, 'matched', 1)
  -- Refund the misses of whoever matched, and nobody else's: by id those made by id, otherwise
  -- those made from the same address without it.
  if of_phone and weight > 0 and own_wrong > 0 then
    take(of_phone, -own_wrong * weight)
  end
  if of_service then
    take(of_service, -own_wrong * weight - (is_test and 0 or miss_per_answer))
  end

  local refunds, codes_of_range = {}, 0
  local function refund(charge, factor)
    for _, pair in ipairs(charge.limits) do
      refunds[pair[1]] = (refunds[pair[1]] or 0) + pair[2] * factor
    end
  end
  local own = charges ~= '' and cjson.decode(charges) or { limits = {}, range = false }
  for _, text in ipairs(redis.call('LRANGE', unanswered, 0, -1)) do
    local charge = text == charges and own or cjson.decode(text)
    codes_of_range = codes_of_range + (charge.range and 1 or 0)
    refund(charge, 1)
  end
  redis.call('DEL', unanswered)
  -- The bonus: half a code more.
  refund(own, 0.5)
  for limit_key, amount_us in pairs(refunds) do
    local refilled_at = redis.call('GET', limit_key)
    if refilled_at then
      store_refilled_at(limit_key, refilled_at - amount_us)
    end
  end

  -- Codes of known devices and open-mode logins earn no trust: they say nothing about
  -- strangers in the range.
  local trust = arguments.trust
  local earned = own.range and earned_by_answer or 0
  if trust and codes_of_range + earned > 0 then
    local left = tonumber(redis.call('HGET', range, 'left') or trust.count) + codes_of_range + earned
    left = math.min(left, math.max(most_trust, trust.count))
    if own.range then
      redis.call('HSET', range, 'left', left, 'strikes', 0, 'answered', 1)
    else
      redis.call('HSET', range, 'left', left)
    end
    redis.call('EXPIRE', range, range_memory_s)
  end
end

-- Challenges that share a code are used as one.
return cjson.encode({ matched = {
  id = code_id, purpose = purpose, name = name, user_id = user_id, device = device,
  is_test = is_test, is_first = not is_matched,
} })
