-- How many codes were sent to a range or a country, and how many of those came back: the conversion,
-- which is low where somebody is paid for messages that nobody reads. A hash holds, per interval of
-- five minutes in which codes were sent, the fields `s<interval>` (sent) and `v<interval>` (verified).
-- A send counts once its code's life is over, and for an hour from then.

local interval_length = 300 * 1000000
local intervals_of_an_hour = 12

local function interval_of(time)
  return math.floor(time / interval_length)
end

-- The newest interval whose codes have all had their time.
local function newest_closed(now, lifetime)
  return interval_of(now - lifetime * 1000) - 1
end

local function count_sent(key, now, lifetime, change)
  local interval = interval_of(now)
  redis.call('HINCRBY', key, 's' .. interval, change)
  redis.call('PEXPIRE', key, lifetime + 2 * 3600 * 1000)
  return interval
end

-- Whether conversion is too low, and if so for how many microseconds it stays so without more sends.
-- It also forgets what is older than the window: whoever counts has to call it.
local function converts_too_little(key, now, lifetime, min_sent, min_percent)
  local last = newest_closed(now, lifetime)
  local first = last - intervals_of_an_hour + 1
  local sent, verified = {}, {}
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local kind, interval = all[i]:sub(1, 1), tonumber(all[i]:sub(2))
    if interval < first then
      redis.call('HDEL', key, all[i])
    elseif kind == 's' then
      sent[interval] = tonumber(all[i + 1])
    else
      verified[interval] = tonumber(all[i + 1])
    end
  end

  local total_sent, total_verified = 0, 0
  for interval = first, last do
    total_sent = total_sent + (sent[interval] or 0)
    total_verified = total_verified + (verified[interval] or 0)
  end
  local recovered = first
  while total_sent >= min_sent and total_verified * 100 < min_percent * total_sent do
    total_sent = total_sent - (sent[recovered] or 0)
    total_verified = total_verified - (verified[recovered] or 0)
    recovered = recovered + 1
  end
  if recovered == first then
    return nil
  end
  -- That interval leaves the window when as many newer ones have closed.
  return (recovered + intervals_of_an_hour) * interval_length + lifetime * 1000 - now
end

