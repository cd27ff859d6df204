-- A rotation. This script merges the entry itself instead of leaving that to the rules. If the node assumed the
-- entry, as it does for other writes, it would have to read the entry before each rotation, and would rotate only
-- 0.80 to 0.94 times as often (benches/nodes, rotation). KEYS: 5 record, 6 index of the subject. ARGV: 3 the
-- expected first bytes of the record, 4 the new record, 5 created, 6-8 targets of subject, client and all, 9 id,
-- and of an entry 10 target, 11 effect, 12 until.
local known = redis.call('GET', KEYS[5])
if not known then return answer('changed', '') end
if string.sub(known, 19, 26) == ARGV[2] then return answer('swapped') end
if string.sub(known, 1, 18) ~= ARGV[3] then
    -- The node makes decisions based on this record, as if it had read it. A replica, whose data may be outdated,
    -- rejects writes.
    wrote()
    return answer('changed', known)
end
for _, held in ipairs(redis.call('HMGET', KEYS[2], ARGV[6], ARGV[7], ARGV[8])) do
    if held and (string.sub(held, 1, 1) ~= 'N' or not later(ARGV[5], string.sub(held, 2, 9))) then return answer('late') end
end

local effect, till, changed
if ARGV[10] then
    -- Merges two effects on one session as `Effect::merge` does. The result has the higher minimum, and a `before` that
    -- also covers the effect with the lower minimum.
    local function merge(a, b)
        local gone = 'G' .. ZERO .. ZERO .. ZERO
        if string.sub(a, 1, 1) == 'G' or string.sub(b, 1, 1) == 'G' then return gone end
        local a_minimum, b_minimum = string.sub(a, 2, 9), string.sub(b, 2, 9)
        if a_minimum == MAX or b_minimum == MAX then return 'M' .. MAX .. ZERO .. ZERO end
        if later(b_minimum, a_minimum) then a, b, a_minimum, b_minimum = b, a, b_minimum, a_minimum end
        local from, before = string.sub(a, 10, 17), string.sub(a, 18, 25)
        if later(string.sub(b, 18, 25), before) then before = string.sub(b, 18, 25) end
        if a_minimum == b_minimum then
            if later(from, string.sub(b, 10, 17)) then from = string.sub(b, 10, 17) end
        elseif later(b_minimum, before) then
            before = b_minimum
        end
        return 'M' .. a_minimum .. from .. before
    end

    effect, till, changed = merge(ARGV[11], ARGV[11]), ARGV[12], true
    local entry = redis.call('HGET', KEYS[2], ARGV[10])
    if entry then
        local kind, known_effect, rest = string.sub(entry, 1, 1), nil, 2
        if kind == 'E' then
            known_effect = 'M' .. MAX .. ZERO .. ZERO
        elseif kind == 'G' then
            known_effect = 'G' .. ZERO .. ZERO .. ZERO
        elseif kind == 'M' then
            known_effect, rest = string.sub(entry, 1, 25), 26
        else
            -- A session cannot have a not-before. Another version may have ended more than this version knows of.
            error('an entry of an unknown kind')
        end
        local known_till = string.sub(entry, rest, rest + 7)
        effect = merge(known_effect, effect)
        if later(known_till, till) then till = known_till end
        changed = effect ~= known_effect or till ~= known_till
    end
end

wrote()
local ends, before = string.sub(ARGV[4], 35, 42), string.sub(known, 35, 42)
store(KEYS[5], ARGV[4], ends, before)
if ends ~= before then
    redis.call('ZADD', KEYS[6], integer(number(ends)), ARGV[9])
    local top = redis.call('ZREVRANGE', KEYS[6], 0, 0, 'WITHSCORES')
    local last = tonumber(top[2]) + KEPT
    if last < EXACT then redis.call('PEXPIREAT', KEYS[6], integer(last)) else redis.call('PERSIST', KEYS[6]) end
    if later(ends, redis.call('HGET', KEYS[1], 'end') or ZERO) then redis.call('HSET', KEYS[1], 'end', ends) end
end
if changed then
    local kind = string.sub(effect, 1, 1)
    if kind == 'M' then kind = string.sub(effect, 2, 9) == MAX and 'E' or effect end
    publish(ARGV[10], kind .. till)
end
return answer('swapped')
