-- Adds to the sums of one hour. A record at or below its writer's mark adds nothing.
--
-- KEYS  the sums (hash: what they are kept by -> integers of eight bytes, most significant first), the marks (hash)
-- ARGV  records, each: writer, epoch, sequence, how many sums, each: field, integers
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

local marks = {}
local place = 1
while place <= #ARGV do
  local writer, epoch, sequence = ARGV[place], tonumber(ARGV[place + 1]), tonumber(ARGV[place + 2])
  if not marks[writer] then
    local known = redis.call('HGET', KEYS[2], writer) or '0:0'
    local known_epoch, known_sequence = string.match(known, '(%d+):(%d+)')
    marks[writer] = { tonumber(known_epoch), tonumber(known_sequence) }
  end
  local mark = marks[writer]
  local is_new = epoch > mark[1] or (epoch == mark[1] and sequence > mark[2])
  local sums = tonumber(ARGV[place + 3])
  if is_new then
    for number = 1, sums do add(ARGV[place + 2 + 2 * number], ARGV[place + 3 + 2 * number]) end
    mark[1], mark[2] = epoch, sequence
    redis.call('HSET', KEYS[2], writer, string.format('%.0f:%.0f', epoch, sequence))
  end
  place = place + 4 + 2 * sums
end
return #ARGV
