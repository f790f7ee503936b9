-- After a batch: everything of these writers up to these records is applied. Only in the store that is meant: one that
-- was emptied meanwhile has no marks.
--
-- KEYS  the marks (hash), id of the store
-- ARGV  the id that is meant; then each: writer, epoch, sequence
-- Gives the id, or ''
local id = redis.call('GET', KEYS[2]) or ''
if id ~= ARGV[1] then return id end
for at = 2, #ARGV, 3 do
  local known = redis.call('HGET', KEYS[1], ARGV[at]) or '0:0'
  local epoch, sequence = string.match(known, '(%d+):(%d+)')
  local is_later = tonumber(ARGV[at + 1]) > tonumber(epoch)
    or (ARGV[at + 1] == epoch and tonumber(ARGV[at + 2]) > tonumber(sequence))
  if is_later then redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1] .. ':' .. ARGV[at + 2]) end
end
return id
