-- The beginning of every script: Redis's clock, and rate limits.
--
-- A limit is a bucket of a count, refilled evenly over a period: the generic cell rate algorithm
-- (GCRA). Its key holds the time in microseconds at which the bucket will be refilled if nothing
-- more is taken. A missing key is a bucket from which nothing is taken. Key expiry only frees
-- memory. Misses are counted in such buckets too: one is full when all of it is taken.
--
-- A limit in the arguments is {kind, step_us, period_us}: one is refilled in `step_us`, all in
-- `period_us`. `with_state` adds its key and `refilled_at`.
--
-- Redis 7.2.4 and Valkey 7.2.5 pass the Lua number 300000000 to a command as 3e+8, which is no
-- expiry. They pass numbers below 10^8 as digits. So long expiries are in seconds, and times in
-- microseconds are passed as text.

local arguments = cjson.decode(ARGV[1])

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2] + arguments.offset_ms * 1000

-- How long a range's trust is remembered. Longer than the longest wait, or that wait would end in a
-- new range's trust.
local range_memory_s = 60 * 86400
-- How long a phone's charges can be refunded after its last code.
local unanswered_memory_s = 86400

local function with_state(limit, key, stored)
  limit.key = key
  limit.refilled_at = stored and math.max(tonumber(stored), now) or now
  return limit
end

local function store_refilled_at(key, refilled_at)
  if refilled_at > now then
    local seconds = math.ceil((refilled_at - now) / 1000000)
    redis.call('SET', key, string.format('%d', refilled_at), 'EX', seconds)
  else
    redis.call('DEL', key)
  end
end

-- Microseconds until one can be taken; zero or less means now.
local function wait_for(limit)
  return limit.refilled_at + limit.step_us - limit.period_us - now
end

-- True if one more miss would lift the bucket above `times` its count.
local function is_full(bucket, times)
  return bucket.refilled_at + bucket.step_us - now > bucket.period_us * times
end

-- The kind and the wait of the limit with the longest wait; nil if none is exhausted.
local function exhausted(limits)
  local kind, longest = nil, 0
  for _, limit in ipairs(limits) do
    local wait = wait_for(limit)
    if wait > longest then
      kind, longest = limit.kind, wait
    end
  end
  return kind, longest
end

local function take(limit, amount)
  store_refilled_at(limit.key, limit.refilled_at + limit.step_us * amount)
end

