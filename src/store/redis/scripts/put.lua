-- KEYS: 5 record, 6 index of the subject. ARGV: 3 record, 4 id. A record of another store takes the place of what is there.
local is_new = redis.call('EXISTS', KEYS[5]) == 0
local till = string.sub(ARGV[3], 35, 42)
wrote()
store(KEYS[5], ARGV[3], till)
if is_new then redis.call('ZINCRBY', KEYS[6], 1, '#') end
index(KEYS[6], ARGV[4], till)
raise_end(till)
return answer('put')
