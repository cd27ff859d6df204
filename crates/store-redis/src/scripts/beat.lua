-- KEYS: 5 nodes. ARGV: 3 node, 4 row, 5 how long the log is kept, 6 how far the node's reader is, 7 the length of a page.
-- Answers with the floor of the log, the run of the server, the entry where the reader is, and those after it.
local last = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
local place = last and last[1] or '0-0'
local floor = redis.call('HGET', KEYS[1], 'floor') or '0-0'
local known = redis.call('XRANGE', KEYS[4], ARGV[6], ARGV[6])
local after = redis.call('XRANGE', KEYS[4], '(' .. ARGV[6], '+', 'COUNT', ARGV[7])
-- It may be forbidden.
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or ''

wrote()
redis.call('HSET', KEYS[5], ARGV[3], pack(now) .. ARGV[4])
-- The last entry stays: readers know by it that this is the log that they read.
local before = integer(math.min(now - tonumber(ARGV[5]), tonumber(string.match(place, '^%d+')))) .. '-0'
if redis.call('XTRIM', KEYS[4], 'MINID', '~', before) > 0 then redis.call('HSET', KEYS[1], 'floor', before) end
return answer('beat', floor, run, known, after)
