-- Marks: epoch and sequence of the last record of a writer that was applied.

local function read_mark(stored)
  local epoch, sequence = string.match(stored or '0:0', '(%d+):(%d+)')
  return { tonumber(epoch), tonumber(sequence) }
end

-- Of the arguments from a place on.
local function mark_at(place)
  return { tonumber(ARGV[place]), tonumber(ARGV[place + 1]) }
end

local function written(mark)
  return string.format('%.0f:%.0f', mark[1], mark[2])
end

local function is_before(mark, other)
  return mark[1] < other[1] or (mark[1] == other[1] and mark[2] < other[2])
end

local function in_part()
  return redis.error_reply('INPART a run of records was applied in part')
end
