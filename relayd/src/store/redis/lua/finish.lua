-- After a batch: everything of these writers up to these records is applied. Only in the store that is meant: one that
-- was emptied meanwhile has no marks.
--
-- KEYS  the marks (hash), id of the store
-- ARGV  the id that is meant; then each: writer, epoch, sequence
-- Gives the id, or ''
local id = redis.call('GET', KEYS[2]) or ''
if id ~= ARGV[1] then return id end
for at = 2, #ARGV, 3 do
  local known, mark = read_mark(redis.call('HGET', KEYS[1], ARGV[at])), mark_at(at + 1)
  if is_before(known, mark) then redis.call('HSET', KEYS[1], ARGV[at], written(mark)) end
end
return id
