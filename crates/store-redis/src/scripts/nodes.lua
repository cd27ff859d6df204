-- KEYS: 5 nodes. ARGV: 3 the maximum age of a node's last beat. Returns the age and the row of each of these nodes.
local found, cursor = {}, '0'
repeat
    local step = redis.call('HSCAN', KEYS[5], cursor, 'COUNT', 1000)
    cursor = step[1]
    for i = 1, #step[2], 2 do
        local row = step[2][i + 1]
        local age = now - number(row)
        if age <= tonumber(ARGV[3]) then
            found[#found + 1] = step[2][i]
            found[#found + 1] = age
            found[#found + 1] = string.sub(row, 9)
        end
    end
until cursor == '0'
-- A replica, whose data may be outdated, rejects writes.
wrote()
return answer('nodes', found)
