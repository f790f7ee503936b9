-- Lets holds of a group live on.
--
-- KEYS  counters and lapses
-- ARGV  now or '', life from now in ms, requests
local now = time_of(ARGV[1])
local lapse = now + tonumber(ARGV[2])
for at = 3, #ARGV do
  local known = redis.call('ZSCORE', KEYS[2], ARGV[at])
  if known and tonumber(known) < lapse then redis.call('ZADD', KEYS[2], text(lapse), ARGV[at]) end
end
keep_alive(KEYS[1], KEYS[2], now, lapse)
return #ARGV
