-- Takes the next epoch: later than any given before, and than the one seen.
--
-- KEYS  the last epoch
-- ARGV  the last one seen
local last = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), tonumber(ARGV[1]))
local epoch = string.format('%.0f', last + 1)
redis.call('SET', KEYS[1], epoch)
return epoch
