-- Writes a session that can be recovered, unless its client has taken it to another node.
--
-- KEYS[1]  HASH: the session
-- ARGV[1]  owner: <incarnation of its node>~<generation>
-- ARGV[2]  digest of its user
-- ARGV[3]  version: an older one changes nothing
-- ARGV[4]  '1' when it has ended
-- ARGV[5]  its state
-- ARGV[6]  ms until it is forgotten; 0: now
-- ARGV[7]  '1' when it may be the first time that it is written
--
-- Returns 1, or 0 when it is another's.

local known = redis.call('HMGET', KEYS[1], 'o', 'v')
if known[1] then
  if known[1] ~= ARGV[1] then return 0 end
elseif ARGV[7] ~= '1' then
  return 0
end
if ARGV[6] == '0' then
  redis.call('DEL', KEYS[1])
  return 1
end
if known[2] and tonumber(known[2]) > tonumber(ARGV[3]) then return 1 end
redis.call('HSET', KEYS[1], 'o', ARGV[1], 'u', ARGV[2], 'v', ARGV[3], 'e', ARGV[4], 's', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return 1
