-- Adds to the sums of one hour. A run is what one writer recorded, summed up: at or below the writer's mark it adds
-- nothing. A run of which a part is below it, or whose forerunner in the same batch is missing, changes nothing at all
-- and is an error.
--
-- KEYS  the sums (hash: what they are kept by -> integers of eight bytes, most significant first), the marks (hash)
-- ARGV  runs, each: writer, epoch and sequence of the forerunner or 0 0, of the first and of the last, how many sums, each: field, integers
local COST, RATED = 4, 6
-- Money is kept in two integers, the second below this: one alone would not be exact.
local BASE = 2 ^ 40

local function numbers(packed)
  local found = {}
  for at = 1, #packed, 8 do found[#found + 1] = struct.unpack('>i8', packed, at) end
  return found
end

local function carry(sum, at)
  local high = math.floor(sum[at + 1] / BASE)
  sum[at], sum[at + 1] = sum[at] + high, sum[at + 1] - high * BASE
end

local function add(field, packed)
  local known = redis.call('HGET', KEYS[1], field)
  if known then
    local sum, more = numbers(known), numbers(packed)
    for at = 1, math.max(#sum, #more) do sum[at] = (sum[at] or 0) + (more[at] or 0) end
    carry(sum, COST)
    carry(sum, RATED)
    local parts = {}
    for at = 1, #sum do parts[at] = struct.pack('>i8', sum[at]) end
    packed = table.concat(parts)
  end
  redis.call('HSET', KEYS[1], field, packed)
end

local runs, marks, place = {}, {}, 1
while place <= #ARGV do
  local writer = ARGV[place]
  local forerunner, first, last = mark_at(place + 1), mark_at(place + 3), mark_at(place + 5)
  local sums = place + 8
  place = sums + 2 * tonumber(ARGV[place + 7])
  local mark = marks[writer] or read_mark(redis.call('HGET', KEYS[2], writer))
  local is_new = is_before(mark, first)
  if is_before(mark, forerunner) or not is_new and is_before(mark, last) then return in_part() end
  if is_new then
    marks[writer] = last
    runs[#runs + 1] = { from = sums, to = place - 1 }
  end
end
for _, run in ipairs(runs) do
  for at = run.from, run.to, 2 do add(ARGV[at], ARGV[at + 1]) end
end
for writer, mark in pairs(marks) do redis.call('HSET', KEYS[2], writer, written(mark)) end
return #runs
