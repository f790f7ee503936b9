-- Before a batch: notes which hours it has rows and sums of, so that nothing is ever looked for by scanning.
--
-- KEYS  the marks (hash), the hours with rows (sorted set), the hours with sums (sorted set)
-- ARGV  how many hours with rows, those, then hours with sums
-- Gives the marks: writer, "epoch:sequence", ...
local rows = tonumber(ARGV[1])
for at = 2, #ARGV do
  redis.call('ZADD', at <= rows + 1 and KEYS[2] or KEYS[3], ARGV[at], ARGV[at])
end
return redis.call('HGETALL', KEYS[1])
