-- Books what closed requests used in one group, in place of what they hold there. A run is what one writer recorded,
-- summed up: at or below the writer's mark it books nothing. A run of which a part is below it, or whose forerunner in
-- the same batch is missing, changes nothing at all and is an error.
--
-- KEYS  counters and lapses
-- ARGV  now or '', then runs, each: writer, epoch and sequence of the forerunner or 0 0, of the first and of the last,
--         how many requests, those, how many bookings, each: counter, start, end or '', amount
-- Gives counter, start, end, booked before, booked after of each counter that moved
local now = time_of(ARGV[1])
local counters, lapses = KEYS[1], KEYS[2]
local marks, moved, order = {}, {}, {}

local function mark_of(writer)
  if not marks[writer] then marks[writer] = read_mark(redis.call('HGET', counters, 'm:' .. writer)) end
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

local runs, place = {}, 2
while place <= #ARGV do
  local run = {
    writer = ARGV[place],
    place = place,
    first = mark_at(place + 3),
    last = mark_at(place + 5),
    requests = place + 8,
  }
  run.bookings = run.requests + tonumber(ARGV[place + 7]) + 1
  place = run.bookings + 4 * tonumber(ARGV[run.bookings - 1])
  run.stop = place
  local mark = mark_of(run.writer)
  run.is_new = is_before(mark, run.first)
  if is_before(mark, mark_at(run.place + 1)) or not run.is_new and is_before(mark, run.last) then return in_part() end
  if run.is_new then marks[run.writer] = run.last end
  runs[#runs + 1] = run
end

for _, run in ipairs(runs) do
  for at = run.requests, run.bookings - 2 do remove_hold(counters, lapses, ARGV[at]) end
  if run.is_new then
    for at = run.bookings, run.stop - 1, 4 do book(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]) end
    redis.call('HSET', counters, 'm:' .. run.writer, written(run.last))
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
