-- Books what closed requests used in one group, in place of what they hold there. A record at or below its
-- writer's mark books nothing.
--
-- KEYS  counters and lapses
-- ARGV  now or '', then records, each: request, writer, epoch, sequence, how many bookings,
--         each: counter, start, end or '', amount
-- Gives counter, start, end, booked before, booked after of each counter that moved
local now = time_of(ARGV[1])
local counters, lapses = KEYS[1], KEYS[2]
local marks, moved, order = {}, {}, {}

local function mark_of(writer)
  if not marks[writer] then
    local known = redis.call('HGET', counters, 'm:' .. writer)
    local epoch, sequence = string.match(known or '0:0', '(%d+):(%d+)')
    marks[writer] = { epoch = tonumber(epoch), sequence = tonumber(sequence) }
  end
  return marks[writer]
end

local function note(counter, start, stop, before)
  if not moved[counter] then order[#order + 1] = counter end
  if not moved[counter] or moved[counter].start ~= start then
    moved[counter] = { start = start, stop = stop, before = before }
  end
end

local function book(counter, start, stop, amount)
  local known = redis.call('HMGET', counters, 's:' .. counter, 'b:' .. counter)
  if known[1] and tonumber(known[1]) > tonumber(start) then return end
  if known[1] == start then
    note(counter, start, stop, known[2] or '0')
    add(counters, 'b:' .. counter, amount)
  else
    note(counter, start, stop, '0')
    start_window(counters, lapses, counter, start, stop, amount, now)
  end
  keep_alive(counters, lapses, now, stop ~= '' and tonumber(stop) or nil)
end

local place = 2
while place <= #ARGV do
  local writer, epoch, sequence = ARGV[place + 1], tonumber(ARGV[place + 2]), tonumber(ARGV[place + 3])
  remove_hold(counters, lapses, ARGV[place])
  local mark = mark_of(writer)
  local is_new = epoch > mark.epoch or (epoch == mark.epoch and sequence > mark.sequence)
  local bookings = tonumber(ARGV[place + 4])
  if is_new and bookings > 0 then
    mark.epoch, mark.sequence, mark.has_moved = epoch, sequence, true
    for number = 1, bookings do
      local at = place + 5 + 4 * (number - 1)
      book(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
    end
  end
  place = place + 5 + 4 * bookings
end

for writer, mark in pairs(marks) do
  if mark.has_moved then
    redis.call('HSET', counters, 'm:' .. writer, text(mark.epoch) .. ':' .. text(mark.sequence))
  end
end
local reply = {}
for _, counter in ipairs(order) do
  local move = moved[counter]
  local after = redis.call('HGET', counters, 'b:' .. counter) or '0'
  if after ~= move.before then
    for _, part in ipairs({ counter, move.start, move.stop, move.before, after }) do reply[#reply + 1] = part end
  end
end
return reply
