-- KEYS: 5 the change. ARGV: 3 the present state, in 16 bytes, 4 how long it is kept, 5 leeway. The first node gets
-- a stamp as for a not-before. Nodes that detect the same change later get the same stamp, unless it was issued
-- when the clock was ahead.
local known = redis.call('GET', KEYS[5])
if known and string.sub(known, 1, 16) == ARGV[3] and tonumber(string.sub(known, 17)) <= now + tonumber(ARGV[5]) then
    return answer('stamp', string.sub(known, 17))
end
local stamp = math.max(now, tonumber(redis.call('HGET', KEYS[1], 'stamp') or '0'))
wrote()
redis.call('HSET', KEYS[1], 'stamp', integer(stamp + 1))
redis.call('SET', KEYS[5], ARGV[3] .. integer(stamp), 'PX', ARGV[4])
return answer('stamp', integer(stamp))
