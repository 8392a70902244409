-- The members of a room that lists its members, in the order in which they joined.
-- ARGV: room, at most how many, at most how many bytes of metadata.
-- Answers { header, members in all, (socket, user, metadata, joined at (ms)) … }.
local room, most, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local answer = {}

local function show(member, at)
  local socket = sockets_of(room, member)[1]
  -- A member without a socket is left over from a node of another version.
  if not socket then
    redis.call('ZREM', roster_key(room), member)
    return true
  end
  local incarnation, id = string.match(string.sub(socket, #member + 2), '^([^%z]*)%z(.*)$')
  local fields = redis.call('HMGET', connection_key(incarnation, id), 'u', 'md')
  local metadata = fields[2] or ''
  bytes = bytes - #metadata
  if bytes < 0 then return false end
  answer[#answer + 1] = { id, fields[1] or '', metadata, at }
  return true
end

local rows = most > 0 and redis.call('ZRANGE', roster_key(room), 0, most - 1, 'WITHSCORES') or {}
for at = 1, #rows, 2 do
  if not show(rows[at], rows[at + 1]) then break end
end
return { header(), redis.call('ZCARD', roster_key(room)), answer }
