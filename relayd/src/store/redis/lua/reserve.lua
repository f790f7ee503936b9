-- Judges a call against the counters of all its groups, and holds what it may need of them, or nothing.
--
-- KEYS  counters and lapses of each group
-- ARGV  now or '', life of the holds in ms, request, turn, then of each group:
--         how many ends come first, those
--         'j' to judge or 'f' to hold whatever fits (in place of what the request held there)
--         how many asks, each: counter, kind, length or start, end or '', amount, limit
-- Gives  {0, start, end, booked, held, ...}  of what was held, leases left out, a counter once
--        {n, start, end, booked, held}       the n-th ask does not fit; '' where no window is in force
local now = time_of(ARGV[1])
local lapse = now + tonumber(ARGV[2])
local request, turn = ARGV[3], ARGV[4]

local groups, place, ask_number = {}, 5, 0
for number = 1, #KEYS / 2 do
  local counters, lapses = KEYS[2 * number - 1], KEYS[2 * number]
  place = undo_listed(counters, lapses, place + 1, tonumber(ARGV[place]), now)
  drop_lapsed(counters, lapses, now)
  local group = { counters = counters, lapses = lapses, is_judged = ARGV[place] == 'j', asks = {} }
  for number_in_group = 1, tonumber(ARGV[place + 1]) do
    local at = place + 2 + 6 * (number_in_group - 1)
    group.asks[number_in_group] = {
      counter = ARGV[at], kind = ARGV[at + 1], start = ARGV[at + 2], stop = ARGV[at + 3],
      amount = ARGV[at + 4], limit = ARGV[at + 5],
    }
  end
  groups[number] = group
  place = place + 2 + 6 * #group.asks
end

-- What comes after its own end, or after the call asked again, is heard by nobody any more.
for _, group in ipairs(groups) do
  local items = holds_of(group.counters, request)
  if items and tonumber(items[1]) >= tonumber(turn) then return { 0 } end
end

for _, group in ipairs(groups) do
  for _, ask in ipairs(group.asks) do
    ask_number = ask_number + 1
    local start, stop, booked, held = standing(group.counters, ask.counter, ask.kind, ask.start, now)
    local total = tonumber(booked or 0) + tonumber(held or 0) + tonumber(ask.amount)
    if group.is_judged and total > tonumber(ask.limit) then
      return { ask_number, start or '', stop or '', booked or '0', held or '0' }
    end
  end
end

local function window(group, ask)
  local start, stop = standing(group.counters, ask.counter, ask.kind, ask.start, now)
  if start then return start, stop end
  if ask.kind == 'l' then
    start, stop = '0', ''
  elseif ask.kind == 'c' then
    start, stop = ask.start, ask.stop
  else
    start, stop = text(now), text(now + tonumber(ask.start))
  end
  start_window(group.counters, group.lapses, ask.counter, start, stop, '0', now)
  return start, stop
end

local reply = { 0 }
for _, group in ipairs(groups) do
  if #group.asks > 0 then
    local once, by_counter = {}, {}
    for _, ask in ipairs(group.asks) do
      local known = by_counter[ask.counter]
      if not known then
        once[#once + 1] = ask
        by_counter[ask.counter] = ask
      elseif tonumber(known.amount) < tonumber(ask.amount) then
        known.amount = ask.amount
      end
    end
    if not group.is_judged then remove_hold(group.counters, group.lapses, request) end
    local items = holds_of(group.counters, request) or { turn }
    items[1] = turn
    local last = lapse
    for _, ask in ipairs(once) do
      local start, stop = window(group, ask)
      local is_lease = ask.kind == 'n' and '1' or '0'
      if is_lease == '0' then
        if stop == '' then last = nil end
        if last and tonumber(stop) > last then last = tonumber(stop) end
      end
      -- What is held again may be of a window that is over.
      local held_from = not group.is_judged and ask.kind == 'c' and ask.start or start
      if held_from == start then add(group.counters, 'h:' .. ask.counter, ask.amount) end
      for _, part in ipairs({ ask.counter, is_lease, held_from, ask.amount }) do items[#items + 1] = part end
    end
    redis.call('HSET', group.counters, 'x:' .. request, cmsgpack.pack(items))
    local known = tonumber(redis.call('ZSCORE', group.lapses, request) or 0)
    redis.call('ZADD', group.lapses, text(math.max(known, lapse)), request)
    keep_alive(group.counters, group.lapses, now, last)
    for _, ask in ipairs(once) do
      if ask.kind ~= 'n' then
        for _, part in ipairs({ standing(group.counters, ask.counter, ask.kind, ask.start, now) }) do
          reply[#reply + 1] = part
        end
      end
    end
  end
end
return reply
