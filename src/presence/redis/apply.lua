-- Applies a batch of a node's changes, in order. Every change may be applied again without harm.
-- ARGV: incarnation, ttl of keys (ms), ttl of an absent user's status (ms), '1' to tell of joins and leaves, changes …
-- Answers { 'gone' } when the lease has ended, else { 'ok', ('joined' | 'left', room, socket, user, metadata, joined at) … }.
local incarnation, ttl, status_ttl, tell = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
if not leased(':nodes', incarnation) and not leased(':staging', incarnation) then return { 'gone' } end

local answer = { 'ok' }
-- The announcements that nobody is told of.
local untold = {}
local announced = tell and answer or untold
local online_ttl = math.max(tonumber(ttl), tonumber(status_ttl))

local function open(id, user, transport, at, metadata)
  local key = connection_key(incarnation, id)
  redis.call('HSET', key, 'u', user, 't', transport, 'at', at, 'md', metadata)
  redis.call('PEXPIRE', key, ttl)
  redis.call('ZADD', base .. ':conns:' .. incarnation, 0, id)
end

local function join(id, user, group, at, by)
  local key = members_key(incarnation, group)
  redis.call('ZADD', key, at, id .. '\0' .. user)
  redis.call('PEXPIRE', key, ttl)
  local kind, name = kind_of(group)
  redis.call('ZADD', base .. ':' .. kind .. ':' .. incarnation, 0, name)
  redis.call('ZADD', base .. ':' .. kind, 0, name)
  if kind == 'users' then
    redis.call('PEXPIRE', base .. ':status:' .. name, online_ttl)
    return
  end
  -- The letter after the time says that the room lists the session, and by what: the user ('e') or the socket ('s').
  local letter = by == 'u' and 'e' or by == 's' and 's' or ''
  redis.call('HSET', connection_key(incarnation, id), 'r' .. group, at .. letter)
  if by == '0' then return end
  local member = member_of(id, user, by)
  local was = told(group, member)
  redis.call('ZADD', told_key(group), 0, told_member(incarnation, id, member))
  enlist(group, member, at)
  redis.call('PEXPIRE', told_key(group), ttl)
  redis.call('PEXPIRE', roster_key(group), ttl)
  if not was then say(announced, 'joined', group, incarnation, id, user, at) end
end

local function leave(id, user, group, by)
  local key = members_key(incarnation, group)
  redis.call('ZREM', key, id .. '\0' .. user)
  if redis.call('EXISTS', key) == 0 then forget_group(incarnation, group, status_ttl) end
  redis.call('HDEL', connection_key(incarnation, id), 'r' .. group)
  if by ~= '0' then unlist(announced, group, incarnation, id, user, by) end
end

local function close(id)
  redis.call('UNLINK', connection_key(incarnation, id))
  redis.call('ZREM', base .. ':conns:' .. incarnation, id)
end

local function metadata(id, value)
  local key = connection_key(incarnation, id)
  if redis.call('EXISTS', key) == 1 then redis.call('HSET', key, 'md', value) end
end

local function status(user, at, value)
  local key = base .. ':status:' .. user
  local known = redis.call('HGET', key, 'at')
  if known and tonumber(known) > tonumber(at) then return end
  redis.call('HSET', key, 'v', value, 'at', at)
  redis.call('PEXPIRE', key, online_ttl)
end

local changes = {
  o = { open, 5 }, j = { join, 5 }, l = { leave, 4 }, c = { close, 1 }, m = { metadata, 2 }, s = { status, 3 },
}
local at = 5
while at <= #ARGV do
  local change = changes[ARGV[at]]
  change[1](unpack(ARGV, at + 1, at + change[2]))
  at = at + 1 + change[2]
end

for _, list in ipairs({ ':conns:' .. incarnation, ':rooms:' .. incarnation, ':users:' .. incarnation, ':rooms', ':users' }) do
  redis.call('PEXPIRE', base .. list, ttl)
end
return answer
