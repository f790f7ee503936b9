-- Where counters of a group stand.
--
-- KEYS  counters and lapses
-- ARGV  now or '', how many ends come first, those; then counters, each: counter, kind, start or ''
-- Gives start, end, booked and held of each; '' where no window is in force
local now = time_of(ARGV[1])
local place = undo_listed(KEYS[1], KEYS[2], 3, tonumber(ARGV[2]), now)
drop_lapsed(KEYS[1], KEYS[2], now)
local reply = {}
for at = place, #ARGV, 3 do
  local start, stop, booked, held = standing(KEYS[1], ARGV[at], ARGV[at + 1], ARGV[at + 2], now)
  for _, part in ipairs({ start or '', stop or '', booked or '0', held or '0' }) do reply[#reply + 1] = part end
end
return reply
