-- Remembers no time later than now. No node follows meanwhile. KEYS: 5 nodes, 6 for which history each of them has. ARGV: from 3
-- on the target of live revocations, and what is kept of them. Each is written anew, into a log that begins anew: its ids would go
-- on from the time that was ahead.
local adopted = redis.call('HEXISTS', KEYS[1], 'adopted') == 1

wrote()
-- What begins is later than the not-befores of now.
redis.call('HSET', KEYS[1], 'stamp', integer(now + 1), 'floor', '0-0')
if adopted then redis.call('HSET', KEYS[1], 'adopted', integer(now)) end
redis.call('DEL', KEYS[4], KEYS[5], KEYS[6])
for i = 3, #ARGV, 2 do publish(ARGV[i], ARGV[i + 1]) end
return answer('lowered')
