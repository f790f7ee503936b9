-- Adds rows of one hour. A row that is there stays as it is.
--
-- KEYS  the rows (sorted set, all of one score: a row is 16 bytes of id, then CBOR, so that they lie in the order
--       of their ids)
-- ARGV  rows
for _, row in ipairs(ARGV) do
  local id = string.sub(row, 1, 16)
  -- CBOR of a row never begins with this byte.
  local found = redis.call('ZRANGEBYLEX', KEYS[1], '[' .. id, '(' .. id .. '\255', 'LIMIT', 0, 1)
  if #found == 0 then redis.call('ZADD', KEYS[1], 0, row) end
end
return #ARGV
