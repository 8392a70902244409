-- Takes a session for its client, so that no other node can take it.
--
-- KEYS[1]  HASH: the session
-- ARGV[1]  digest of the user who asks
--
-- Returns 'unknown', 'refused', or 'taken' with owner, '1' when it has ended, and its state.

local known = redis.call('HMGET', KEYS[1], 'u', 'o', 'e', 's')
if not known[1] then return { 'unknown' } end
if known[1] ~= ARGV[1] then return { 'refused' } end
redis.call('DEL', KEYS[1])
return { 'taken', known[2], known[3], known[4] }
