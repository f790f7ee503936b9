-- What every script over groups of counters shares. A group is two keys, in one slot:
--
--   counters (hash)
--     s:<counter> e:<counter>  the window that runs, in milliseconds; e: is '' where it has no end
--     b:<counter> h:<counter>  what is booked and held in it; a lease has nothing but h:
--     x:<request>              what a request holds: the turn at which it asked last, then counter, 1 for a lease,
--                              start of its window, amount, ...
--     m:<writer>               epoch and sequence of the last record applied to this group
--     p                        there is a counter whose window never ends
--   lapses (sorted set)        the requests that hold something, by when their holds lapse
--
-- Amounts and times stay decimal text wherever they are kept or added: Lua's numbers are exact to 2^53 only,
-- which is enough to compare them.

-- How long a group is kept after the last of its windows and holds is over: marks outlive the journal's segments.
local KEEP_MS = 8 * 24 * 3600 * 1000
-- How long what was booked in a window is kept after its end, for those who ask late.
local ENDED_KEEP_MS = 24 * 3600 * 1000
-- How long a call may be on its way to the server at most.
local LATE_MS = 60 * 1000
local AMOUNT_MAX = '9223372036854775807'

-- The caller's time, or the server's where the caller gives none.
local function time_of(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function text(number)
  return string.format('%.0f', number)
end

-- A script is not undone where it fails, so nothing here does: what is no number counts as nothing.
local function add(counters, field, amount)
  local sum = redis.pcall('HINCRBY', counters, field, amount)
  if type(sum) ~= 'table' then return end
  redis.call('HSET', counters, field, string.find(sum.err, 'overflow') and AMOUNT_MAX or amount)
end

local function subtract(counters, field, amount)
  if amount == '0' then return end
  local left = redis.pcall('HINCRBY', counters, field, '-' .. amount)
  if type(left) == 'table' or left <= 0 then redis.call('HDEL', counters, field) end
end

-- Takes what is held of an item out of its counter, if the window still runs.
local function let_go(counters, counter, is_lease, start, amount)
  if is_lease == '1' or redis.call('HGET', counters, 's:' .. counter) == start then
    subtract(counters, 'h:' .. counter, amount)
  end
end

local function holds_of(counters, request)
  local packed = redis.call('HGET', counters, 'x:' .. request)
  if not packed then return nil end
  local is_sound, items = pcall(cmsgpack.unpack, packed)
  return is_sound and type(items) == 'table' and items or { '0' }
end

local function remove_hold(counters, lapses, request)
  local items = holds_of(counters, request)
  if not items then return end
  for at = 2, #items, 4 do let_go(counters, items[at], items[at + 1], items[at + 2], items[at + 3]) end
  redis.call('HDEL', counters, 'x:' .. request)
  redis.call('ZREM', lapses, request)
end

-- Gives back the leases alone.
local function release(counters, lapses, request)
  local items = holds_of(counters, request)
  if not items then return end
  local kept = { items[1] }
  for at = 2, #items, 4 do
    if items[at + 1] == '1' then
      let_go(counters, items[at], '1', '', items[at + 3])
    else
      for offset = 0, 3 do kept[#kept + 1] = items[at + offset] end
    end
  end
  if #kept > 1 then
    redis.call('HSET', counters, 'x:' .. request, cmsgpack.pack(kept))
  else
    redis.call('HDEL', counters, 'x:' .. request)
    redis.call('ZREM', lapses, request)
  end
end

-- Lets the group live past `last`; for ever if that is nil.
local function keep_alive(counters, lapses, now, last)
  if redis.call('HEXISTS', counters, 'p') == 1 then
    redis.call('PERSIST', lapses)
    return
  end
  if not last then
    redis.call('HSET', counters, 'p', '1')
    redis.call('PERSIST', counters)
    redis.call('PERSIST', lapses)
    return
  end
  local ttl = math.max(last - now, 0) + KEEP_MS
  for _, key in ipairs({ counters, lapses }) do
    if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, text(ttl)) end
  end
end

-- Carries out the ends that the arguments list from `place` on, each: 'r' to give back the leases or 'u' everything,
-- request, the last turn that is meant; tells where they end. An end may come late and more than once, so what was
-- held in a later turn stays. It may also come before what it ends: then it is remembered for a while.
local function undo_listed(counters, lapses, place, number, now)
  for _ = 1, number do
    local kind, request, turn = ARGV[place], ARGV[place + 1], tonumber(ARGV[place + 2])
    local items = holds_of(counters, request)
    if items and tonumber(items[1]) <= turn then
      if kind == 'r' then release(counters, lapses, request) else remove_hold(counters, lapses, request) end
    end
    if kind == 'u' and not items then
      redis.call('HSET', counters, 'x:' .. request, cmsgpack.pack({ text(turn) }))
      redis.call('ZADD', lapses, text(now + LATE_MS), request)
      keep_alive(counters, lapses, now, now + LATE_MS)
    end
    place = place + 3
  end
  return place
end

local function drop_lapsed(counters, lapses, now)
  for _, request in ipairs(redis.call('ZRANGEBYSCORE', lapses, '-inf', text(now))) do
    remove_hold(counters, lapses, request)
    -- Also where nothing was held any more.
    redis.call('ZREM', lapses, request)
  end
end

-- Where a counter stands: start and end of its window, what is booked and held. Nothing where no window is in
-- force. `kind` is n(ow), f(ixed), c(alendar) or l(ifetime), `start` the start of the calendar's window.
local function standing(counters, counter, kind, start, now)
  local found = redis.call(
    'HMGET', counters, 's:' .. counter, 'e:' .. counter, 'b:' .. counter, 'h:' .. counter)
  local booked, held = found[3] or '0', found[4] or '0'
  if kind == 'n' then return '0', '', '0', held end
  if not found[1] then return nil end
  if kind == 'f' and found[2] ~= '' and tonumber(found[2]) <= now then return nil end
  if kind == 'c' and tonumber(found[1]) < tonumber(start) then return nil end
  return found[1], found[2], booked, held
end

-- Counts anew what is held in a window.
local function count_held(counters, lapses, counter, start)
  local sum = 0
  for _, request in ipairs(redis.call('ZRANGE', lapses, 0, -1)) do
    local items = holds_of(counters, request) or {}
    for at = 2, #items, 4 do
      if items[at] == counter and items[at + 2] == start then sum = sum + tonumber(items[at + 3]) end
    end
  end
  if sum > 0 then
    redis.call('HSET', counters, 'h:' .. counter, text(sum))
  else
    redis.call('HDEL', counters, 'h:' .. counter)
  end
end

-- Forgets windows that are long over: those of limits that are gone would pile up.
local function forget_ended(counters, now)
  for _, field in ipairs(redis.call('HKEYS', counters)) do
    if string.sub(field, 1, 2) == 'e:' then
      local stop = redis.call('HGET', counters, field)
      local counter = string.sub(field, 3)
      if stop ~= '' and tonumber(stop) + ENDED_KEEP_MS <= now then
        redis.call('HDEL', counters, 's:' .. counter, field, 'b:' .. counter, 'h:' .. counter)
      end
    end
  end
end

local function start_window(counters, lapses, counter, start, stop, booked, now)
  local is_new = redis.call('HEXISTS', counters, 's:' .. counter) == 0
  redis.call('HSET', counters, 's:' .. counter, start, 'e:' .. counter, stop, 'b:' .. counter, booked)
  if is_new then return end
  count_held(counters, lapses, counter, start)
  forget_ended(counters, now)
end
