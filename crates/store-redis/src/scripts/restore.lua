-- Writes a record back that was lost. KEYS: 5 record, 6 index of the subject. ARGV: 3 record, 4 created, 5-7 targets of
-- subject, client and all, 8 id, 9 target of the session.
local known, record = redis.call('GET', KEYS[5]), ARGV[3]
if known then
    if not whole(known) then return answer('version', string.byte(known, 1) or 0) end
    local known_current, current = string.sub(known, 11, 18), string.sub(record, 11, 18)
    local known_revision, revision = string.sub(known, 3, 10), string.sub(record, 3, 10)
    local is_later = later(current, known_current) or current == known_current and later(revision, known_revision)
    -- Not lost; or changed since the loss. What another node wrote back has no history: the later record stays.
    if revoked(known) or not is_later or string.sub(known, 27, 34) == HISTORY then return answer('had') end
    if string.sub(known, 51, 58) ~= string.sub(record, 51, 58) then return answer('moved') end
    -- A note of use may have raised the revision of an earlier generation since.
    if not later(revision, known_revision) then
        record = string.sub(record, 1, 2) .. plus(known_revision, 1) .. string.sub(record, 11)
    end
end
local entry = redis.call('HGET', KEYS[2], ARGV[9])
-- Only a minimum leaves a session that goes on.
if entry and string.sub(entry, 1, 1) ~= 'M' then return answer('had') end
local moment = not_before(ARGV[5], ARGV[6], ARGV[7])
if moment and not later(ARGV[4], moment) then return answer('had') end
local till = string.sub(record, 35, 42)
if number(till) + KEPT < now then return answer('had') end

local index, raise_end = indexes()
wrote()
store(KEYS[5], record, till)
if not known then redis.call('ZINCRBY', KEYS[6], 1, '#') end
index(KEYS[6], ARGV[8], till)
raise_end(till)
return answer('restored')
