-- Adds rows of one hour.
--
-- KEYS  the rows (sorted set, all of one score: a row is 16 bytes of id, then CBOR, so that they lie in the order
--       of their ids)
-- ARGV  '1' to replace a row that is there, '' to leave it as it is; rows
for at = 2, #ARGV do
  local row = ARGV[at]
  local id = string.sub(row, 1, 16)
  -- CBOR of a row never begins with this byte.
  local found = redis.call('ZRANGEBYLEX', KEYS[1], '[' .. id, '(' .. id .. '\255', 'LIMIT', 0, 1)
  if ARGV[1] == '1' and found[1] and found[1] ~= row then redis.call('ZREM', KEYS[1], found[1]) end
  if #found == 0 or ARGV[1] == '1' then redis.call('ZADD', KEYS[1], 0, row) end
end
return #ARGV - 1
