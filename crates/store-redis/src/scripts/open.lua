-- Creates the head, or compares it. ARGV: 1 history, 2 op, 3 store id, then pairs of field and value.
if not redis.call('HGET', KEYS[1], 'schema') then
    if redis.call('EXISTS', KEYS[2], KEYS[4]) > 0 then return {now, 0, 'headless'} end
    redis.call('HSET', KEYS[1], 'seq', '1', 'stamp', '0', 'end', ZERO, 'floor', '0-0', 'store', ARGV[3], 'history', ARGV[1],
        unpack(ARGV, 4))
    return {now, 1, 'open', ARGV[1], ARGV[3]}
end
local copying, copies = redis.call('HGET', KEYS[1], 'copying'), false
for i = 4, #ARGV, 2 do copies = copies or ARGV[i] == 'copying' end
if copying and not copies then return {now, seq, 'differs', 'unfinished', copying} end
for i = 4, #ARGV, 2 do
    local known = redis.call('HGET', KEYS[1], ARGV[i])
    if known ~= ARGV[i + 1] then return {now, seq, 'differs', ARGV[i], known} end
end
-- Writes even if there is nothing to create, which shows that the store accepts writes.
wrote()
return {now, seq, 'open', redis.call('HGET', KEYS[1], 'history'), redis.call('HGET', KEYS[1], 'store')}
