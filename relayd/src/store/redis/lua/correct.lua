-- Sets counters of a group that stand where they are said to stand.
--
-- KEYS  counters and lapses
-- ARGV  now or '', then counters, each: counter, start and end of the window, booked before, booked after
-- Gives the numbers of those that were set
local now = time_of(ARGV[1])
local counters, lapses = KEYS[1], KEYS[2]
local moved = {}
for at = 2, #ARGV, 5 do
  local counter, start, stop, before, after = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local known = redis.call('HMGET', counters, 's:' .. counter, 'b:' .. counter)
  local is_set = false
  if known[1] == start then
    is_set = (known[2] or '0') == before
    if is_set then redis.call('HSET', counters, 'b:' .. counter, after) end
  elseif before == '0' and (not known[1] or tonumber(known[1]) < tonumber(start)) then
    is_set = true
    start_window(counters, lapses, counter, start, stop, after, now)
  end
  if is_set then
    moved[#moved + 1] = (at - 2) / 5
    keep_alive(counters, lapses, now, stop ~= '' and tonumber(stop) or nil)
  end
end
return moved
