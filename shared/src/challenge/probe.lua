-- Takes from limits and does nothing else: the price of a response that sends no message but
-- reveals something.
--
-- KEYS     the limits, in the order of `limits`
-- ARGV[1]  JSON:
--   offset_ms   added to the clock; 0 outside tests
--   limits      [{kind, step_us, period_us}]
--
-- Returns JSON: "taken", or {"limited": {kind, wait_us}}

local limits = arguments.limits
for i, limit in ipairs(limits) do
  with_state(limit, KEYS[i], redis.call('GET', KEYS[i]))
end
local kind, wait = exhausted(limits)
if kind then
  return cjson.encode({ limited = { kind = kind, wait_us = math.ceil(wait) } })
end
for _, limit in ipairs(limits) do
  take(limit, 1)
end
return '"taken"'
