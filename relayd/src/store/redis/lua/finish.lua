-- After a batch: everything of these writers up to these records is applied.
--
-- KEYS  the marks (hash)
-- ARGV  each: writer, epoch, sequence
for at = 1, #ARGV, 3 do
  local known = redis.call('HGET', KEYS[1], ARGV[at]) or '0:0'
  local epoch, sequence = string.match(known, '(%d+):(%d+)')
  local is_later = tonumber(ARGV[at + 1]) > tonumber(epoch)
    or (ARGV[at + 1] == epoch and tonumber(ARGV[at + 2]) > tonumber(sequence))
  if is_later then redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1] .. ':' .. ARGV[at + 2]) end
end
return redis.status_reply('OK')
