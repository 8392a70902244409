-- Forgets a session, unless its client has taken it to another node.
--
-- KEYS[1]  HASH: the session
-- ARGV[1]  the incarnation of the node that had it
--
-- Returns 1.

local owner = redis.call('HGET', KEYS[1], 'o')
if owner and string.sub(owner, 1, #ARGV[1] + 1) == ARGV[1] .. '~' then
  redis.call('DEL', KEYS[1])
end
return 1
