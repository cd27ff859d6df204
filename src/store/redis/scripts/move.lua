-- The store was moved: the history is one that no node takes over. ARGV: 3 that history, 4 where to.
local known = redis.call('HGET', KEYS[1], 'moved')
if known then return answer('moved', known) end
if not right then return {now, 0, 'history', head[1]} end
wrote()
redis.call('HSET', KEYS[1], 'moved', ARGV[4], 'history', ARGV[3])
return answer('moved', ARGV[4])
