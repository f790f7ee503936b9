-- Before a batch: notes which hours it has rows and sums of, and in which groups it books, so that nothing is ever
-- looked for by scanning.
--
-- KEYS  the marks (hash), the hours with rows (sorted set), the hours with sums (sorted set), the groups (sorted set,
--       all of one score), id of the store
-- ARGV  how many hours with rows, how many with sums, those, then groups
-- Gives the id or '', and the marks: writer, "epoch:sequence", ...
local rows, sums = tonumber(ARGV[1]), tonumber(ARGV[2])
for at = 3, #ARGV do
  if at <= rows + 2 then
    redis.call('ZADD', KEYS[2], ARGV[at], ARGV[at])
  elseif at <= rows + sums + 2 then
    redis.call('ZADD', KEYS[3], ARGV[at], ARGV[at])
  else
    redis.call('ZADD', KEYS[4], 0, ARGV[at])
  end
end
return { redis.call('GET', KEYS[5]) or '', redis.call('HGETALL', KEYS[1]) }
