-- Gives the data a new history, unless another node has done so. ARGV: 1 the history that the node knows, 2 op, 3
-- the new history, 4 the store, 5 '0' if the node does not know of a loss in this partition.
local known = redis.call('HGET', KEYS[1], 'store')
if not known then return {now, 0, 'headless'} end
if known ~= ARGV[4] then return {now, seq, 'differs'} end
if head[1] ~= HISTORY or ARGV[5] == '0' then return {now, seq, 'adopted', head[1]} end
wrote()
redis.call('HSET', KEYS[1], 'history', ARGV[3], 'adopted', integer(now))
return {now, seq, 'adopted', ARGV[3]}
