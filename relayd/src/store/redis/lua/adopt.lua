-- Puts what is booked in a group in place of what is there. What is held stays held.
--
-- KEYS  counters and lapses
-- ARGV  now or '', how many counters, each: counter, start, end or '', booked; then marks, each: writer, epoch, sequence
local now = time_of(ARGV[1])
local counters, lapses = KEYS[1], KEYS[2]
for _, field in ipairs(redis.call('HKEYS', counters)) do
  local kind = string.sub(field, 1, 2)
  if kind == 's:' or kind == 'e:' or kind == 'b:' or kind == 'm:' then redis.call('HDEL', counters, field) end
end
local place, last, has_end = 3, now, true
for _ = 1, tonumber(ARGV[2]) do
  local counter, start, stop = ARGV[place], ARGV[place + 1], ARGV[place + 2]
  redis.call('HSET', counters, 's:' .. counter, start, 'e:' .. counter, stop, 'b:' .. counter, ARGV[place + 3])
  count_held(counters, lapses, counter, start)
  if stop == '' then has_end = false elseif tonumber(stop) > last then last = tonumber(stop) end
  place = place + 4
end
for at = place, #ARGV, 3 do
  redis.call('HSET', counters, 'm:' .. ARGV[at], ARGV[at + 1] .. ':' .. ARGV[at + 2])
end
keep_alive(counters, lapses, now, has_end and last or nil)
return redis.status_reply('OK')
