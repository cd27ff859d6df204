-- KEYS: 5 nodes. ARGV: 3 node, 4 row, 5 how long the log is kept.
local last = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
local place = last and last[1] or '0-0'
local floor = redis.call('HGET', KEYS[1], 'floor') or '0-0'

wrote()
redis.call('HSET', KEYS[5], ARGV[3], pack(now) .. ARGV[4])
-- The last entry stays: readers know by it that this is the log that they read.
local before = integer(math.min(now - tonumber(ARGV[5]), tonumber(string.match(place, '^%d+')))) .. '-0'
if redis.call('XTRIM', KEYS[4], 'MINID', '~', before) > 0 then
    floor = before
    redis.call('HSET', KEYS[1], 'floor', floor)
end
return answer('beat', place, floor)
