-- KEYS: from 5 on, records. ARGV: from 3 on, the generation of each.
local records, changed, marked, unreadable = {}, {}, {}, {}
for i = 5, #KEYS do
    local key = KEYS[i]
    local record = records[key] or redis.call('GET', key)
    if record and not whole(record) then
        unreadable[#unreadable + 1] = i - 4
    elseif record and not revoked(record) and string.sub(record, 11, 18) == ARGV[i - 2] then
        local flags = string.byte(record, 2)
        if math.floor(flags / 2) % 2 == 0 then
            record = '\1' .. string.char(flags + 2) .. plus(string.sub(record, 3, 10), 1) .. string.sub(record, 11)
            records[key] = record
            changed[#changed + 1] = key
            marked[#marked + 1] = i - 4
        end
    end
end

if #changed > 0 then wrote() end
for _, key in ipairs(changed) do redis.call('SET', key, records[key], 'KEEPTTL') end
return answer('confirmed', marked, unreadable)
