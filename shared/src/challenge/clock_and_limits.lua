-- What every script begins with: Redis's clock, and limits.
--
-- A limit lets `count` through at once and then one every `period / count`: the generic cell rate
-- algorithm (GCRA). Its key holds the time, in microseconds, until which it is used up if nothing
-- more is taken; so a missing key is a limit that nobody has touched.

local function now_with(offset)
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2] + offset * 1000
end

-- Reads the limits from KEYS[first_key…last_key]; the arguments hold a count and a period, in
-- microseconds, for each.
local function limits_of(first_key, last_key, first_argument)
  local limits = {}
  for i = 0, last_key - first_key do
    local count, period = ARGV[first_argument + 2 * i], ARGV[first_argument + 2 * i + 1]
    limits[i + 1] = { key = KEYS[first_key + i], period = tonumber(period), step = period / count }
  end
  return limits
end

local function used_until(limit, now)
  return math.max(tonumber(redis.call('GET', limit.key) or 0), now)
end

local function set_used_until(limit, time, now)
  if time > now then
    redis.call('SET', limit.key, string.format('%.0f', time), 'PX', math.ceil((time - now) / 1000))
  else
    redis.call('DEL', limit.key)
  end
end

-- Which of the limits has nothing left, and for how many microseconds; the longest wait, if several.
local function exhausted(limits, now)
  local index, longest = nil, 0
  for i, limit in ipairs(limits) do
    local wait = used_until(limit, now) + limit.step - limit.period - now
    if wait > longest then
      index, longest = i, wait
    end
  end
  return index, longest
end

local function take(limits, now)
  for _, limit in ipairs(limits) do
    set_used_until(limit, used_until(limit, now) + limit.step, now)
  end
end

local function give_back(limits, now)
  for _, limit in ipairs(limits) do
    set_used_until(limit, used_until(limit, now) - limit.step, now)
  end
end

