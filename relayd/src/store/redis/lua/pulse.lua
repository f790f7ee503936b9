-- Says who the store is and what became of it; writes, because a store that cannot is of no use.
--
-- KEYS  id of the store, version of the records, beat of this node
-- ARGV  a new id for a store that has none, or '' not to give it one; life of the beat in ms
-- Gives its id or '', the version of its records
if ARGV[1] ~= '' then redis.call('SET', KEYS[1], ARGV[1], 'NX') end
redis.call('SET', KEYS[3], 1, 'PX', ARGV[2])
return { redis.call('GET', KEYS[1]) or '', redis.call('GET', KEYS[2]) or '0' }
