-- Drops the first rows of an hour, and adds what they had booked in windows that may still run to the balances. If the
-- rows are not those that were counted, nothing happens.
--
-- KEYS  the rows, the balances (hash: group, counter, start and end of a window in lines -> amount), the times since
--       when everything is kept (hash)
-- ARGV  the last of the rows, how many they are, the time before which rows go, then balances, each: field, amount
local last = '[' .. ARGV[1]
if redis.call('ZLEXCOUNT', KEYS[1], '-', last) ~= tonumber(ARGV[2]) then return 0 end
for at = 4, #ARGV, 2 do
  local sum = redis.pcall('HINCRBY', KEYS[2], ARGV[at], ARGV[at + 1])
  local is_full = type(sum) == 'table' and string.find(sum.err, 'overflow')
  if is_full then redis.call('HSET', KEYS[2], ARGV[at], '9223372036854775807') end
end
local known = redis.call('HGET', KEYS[3], 'rows_since')
if not known or tonumber(known) < tonumber(ARGV[3]) then redis.call('HSET', KEYS[3], 'rows_since', ARGV[3]) end
return redis.call('ZREMRANGEBYLEX', KEYS[1], '-', last)
