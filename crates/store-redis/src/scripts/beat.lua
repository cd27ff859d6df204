-- KEYS: 5 nodes. ARGV: 3 node, 4 row, 5 how long the log is kept, 6 the position of the node's reader, 7 the length
-- of a page. Returns the first position of the log, the run id of the server, the entry at the reader's position,
-- and the entries after it.
local last = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
local place = last and last[1] or '0-0'
local floor = redis.call('HGET', KEYS[1], 'floor') or '0-0'
local known = redis.call('XRANGE', KEYS[4], ARGV[6], ARGV[6])
local after = redis.call('XRANGE', KEYS[4], '(' .. ARGV[6], '+', 'COUNT', ARGV[7])
-- The user may not be allowed to call INFO.
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or ''

wrote()
redis.call('HSET', KEYS[5], ARGV[3], pack(now) .. ARGV[4])
-- The last entry is never trimmed, because readers use it to determine that this is the log that they have read.
local before = integer(math.min(now - tonumber(ARGV[5]), tonumber(string.match(place, '^%d+')))) .. '-0'
if redis.call('XTRIM', KEYS[4], 'MINID', '~', before) > 0 then redis.call('HSET', KEYS[1], 'floor', before) end
return answer('beat', floor, run, known, after)
