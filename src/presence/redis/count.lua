-- Counts in O(nodes). ARGV: the group; none for the whole namespace.
-- Answers { header, connections, rooms, users }.
local connections = 0
for _, incarnation in ipairs(live()) do
  local key = ARGV[1] and members_key(incarnation, ARGV[1]) or base .. ':conns:' .. incarnation
  connections = connections + redis.call('ZCARD', key)
end
return { header(), connections, redis.call('ZCARD', base .. ':rooms'), redis.call('ZCARD', base .. ':users') }
