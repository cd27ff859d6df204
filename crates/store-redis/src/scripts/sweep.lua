-- KEYS: 5 nodes. ARGV: 3 the maximum number of revocations, 4 how long a node is remembered.
local ended = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '(' .. integer(now - KEPT), 'LIMIT', 0, ARGV[3])
local page = redis.call('HSCAN', KEYS[5], '0', 'COUNT', 1000)
local rows, silent, kept = page[2], {}, tonumber(ARGV[4])
-- There are more nodes than fit on a page.
if page[1] ~= '0' then kept = KEPT end
for i = 1, #rows, 2 do
    if number(rows[i + 1]) + kept < now then silent[#silent + 1] = rows[i] end
end

if #ended > 0 then
    wrote()
    redis.call('HDEL', KEYS[2], unpack(ended))
    redis.call('ZREM', KEYS[3], unpack(ended))
end
for _, node in ipairs(silent) do redis.call('HDEL', KEYS[5], node) end
return answer('swept', #ended)
