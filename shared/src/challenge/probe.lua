-- Takes from limits and does nothing else: what an answer costs that sends no message but tells
-- something.
--
-- KEYS  1  any         keeps the script on its slot where the limit is off
--       2… limits
-- ARGV  1  offset      added to the clock, in milliseconds; 0 outside tests
--       2… limits      count and period
--
-- Answer: {'taken'}
--         {'limited', index, microseconds}   which limit, counted from 1, and how long it lasts

local now = now_with(tonumber(ARGV[1]))
local limits = limits_of(2, #KEYS, 2)

local index, wait = exhausted(limits, now)
if index then
  return {'limited', tostring(index), string.format('%.0f', wait)}
end
take(limits, now)
return {'taken'}
