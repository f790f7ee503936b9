-- Puts rows in the places of others.
--
-- KEYS  the rows
-- ARGV  each: the row that is there, the one in its place
-- Gives how many were there
local found = 0
for at = 1, #ARGV, 2 do
  if redis.call('ZSCORE', KEYS[1], ARGV[at]) then
    redis.call('ZREM', KEYS[1], ARGV[at])
    redis.call('ZADD', KEYS[1], 0, ARGV[at + 1])
    found = found + 1
  end
end
return found
