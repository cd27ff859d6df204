-- Makes the store remember no time later than now. No node may follow the log in the meantime. KEYS: 5 nodes, 6 the
-- history that each of them has restored. ARGV: from 3 on, the targets of live revocations, each followed by its
-- stored effect. Each revocation is written again, into a new log, because the ids in the old log would continue
-- from the time that was ahead.
local adopted = redis.call('HEXISTS', KEYS[1], 'adopted') == 1

wrote()
-- Everything that is created from now on is later than the not-befores of this moment.
redis.call('HSET', KEYS[1], 'stamp', integer(now + 1), 'floor', '0-0')
if adopted then redis.call('HSET', KEYS[1], 'adopted', integer(now)) end
redis.call('DEL', KEYS[4], KEYS[5], KEYS[6])
for i = 3, #ARGV, 2 do publish(ARGV[i], ARGV[i + 1]) end
return answer('lowered')
