-- Changes records, all or none, and logs what changed.
--
-- KEYS  version of the records, log of changes (list), audit log (sorted set), its numbers, then the records of each
--       kind (hashes: id -> version, a blank, value)
-- ARGV  writes, each: number of its kind from 1, id, expected version or '', 'w' or 'd' to delete, value,
--       audit entry or '', its time
-- Gives {0} if a record is at another version, else {version of the records, new version of each}
local LOGGED_MAX = 10000
local AUDITED_MAX = 100000

local function records(at) return KEYS[4 + tonumber(ARGV[at])] end

local function version_of(at, pending)
  local key = ARGV[at] .. ' ' .. ARGV[at + 1]
  if pending[key] ~= nil then return pending[key] end
  local stored = redis.call('HGET', records(at), ARGV[at + 1])
  return stored and string.match(stored, '^(%d+) ') or ''
end

local versions, pending = {}, {}
for at = 1, #ARGV, 7 do
  local version = version_of(at, pending)
  if version ~= ARGV[at + 2] then return { 0 } end
  versions[#versions + 1] = string.format('%.0f', tonumber(version == '' and 0 or version) + 1)
  pending[ARGV[at] .. ' ' .. ARGV[at + 1]] = ARGV[at + 3] == 'w' and versions[#versions] or ''
end

local reply = { redis.call('INCR', KEYS[1]) }
for number, version in ipairs(versions) do
  local at = 7 * number - 6
  if ARGV[at + 3] == 'w' then
    redis.call('HSET', records(at), ARGV[at + 1], version .. ' ' .. ARGV[at + 4])
  else
    redis.call('HDEL', records(at), ARGV[at + 1])
  end
  redis.call('RPUSH', KEYS[2], string.format('%.0f', reply[1]) .. ' ' .. ARGV[at] .. ' ' .. ARGV[at + 1])
  if ARGV[at + 5] ~= '' then
    -- The number tells entries of one millisecond apart, and keeps them in their order.
    local entry = string.format('%020.0f', redis.call('INCR', KEYS[4])) .. ARGV[at + 5]
    redis.call('ZADD', KEYS[3], ARGV[at + 6], entry)
  end
  reply[number + 1] = tonumber(version)
end
redis.call('LTRIM', KEYS[2], -LOGGED_MAX, -1)
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -AUDITED_MAX - 1)
return reply
