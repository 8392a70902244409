-- The beginning of every presence script. KEYS[1] is the namespace's base, such as "roomcast:presence:v1:{/chat}". All
-- other keys begin with it, so they are in the same slot. Times are Redis' own, so that the nodes' clocks do not
-- matter.
local base = KEYS[1]

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local now = now_ms()

-- An incarnation counts while its lease runs. A lease that has ended is never renewed.
local function leased(set, incarnation)
  local ends = redis.call('ZSCORE', base .. set, incarnation)
  return ends and tonumber(ends) > now
end

local function live()
  local found = redis.call('ZRANGEBYSCORE', base .. ':nodes', '(' .. now, '+inf')
  table.sort(found)
  return found
end

local function members_key(incarnation, group) return base .. ':in:' .. incarnation .. ':' .. group end
local function connection_key(incarnation, id) return base .. ':conn:' .. incarnation .. ':' .. id end

-- The bytes of the fields and values of a HASH.
local function size_of(hash)
  local bytes = 0
  for _, text in ipairs(hash) do bytes = bytes + #text end
  return bytes
end

-- A user's group is the room that all sockets of the user are in.
local USER = '$user:'
local function kind_of(group)
  if string.sub(group, 1, #USER) == USER then return 'users', string.sub(group, #USER + 1) end
  return 'rooms', group
end

-- Whether another incarnation, live or not, holds members of the group.
local all_nodes
local function held_elsewhere(group, except)
  if not all_nodes then
    all_nodes = redis.call('ZRANGE', base .. ':nodes', 0, -1)
    for _, staged in ipairs(redis.call('ZRANGE', base .. ':staging', 0, -1)) do all_nodes[#all_nodes + 1] = staged end
  end
  for _, incarnation in ipairs(all_nodes) do
    if incarnation ~= except and redis.call('EXISTS', members_key(incarnation, group)) == 1 then return true end
  end
  return false
end

-- Removes the group from the namespace's lists when it has no members.
local function forget_group(incarnation, group, status_ttl)
  local kind, name = kind_of(group)
  redis.call('ZREM', base .. ':' .. kind .. ':' .. incarnation, name)
  if held_elsewhere(group, incarnation) then return end
  redis.call('ZREM', base .. ':' .. kind, name)
  if kind == 'users' then redis.call('PEXPIRE', base .. ':status:' .. name, status_ttl) end
end

-- The key of a member of a room that lists its members. by: 'u' when all sockets of a user are one member, 's' when each
-- socket is one, as it always is for anonymous users. No user id begins with the character 1.
local function member_of(id, user, by) return by == 'u' and user ~= '' and user or '\1' .. id end

-- The members of a room that lists them, with the time at which each joined (ms). A member that is new in the list comes
-- last, although the clock of its node may be behind.
local function roster_key(room) return base .. ':roster:' .. room end
local function enlist(room, member, at)
  local key = roster_key(room)
  if redis.call('ZSCORE', key, member) then return end
  local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]
  if last and tonumber(last) >= tonumber(at) then at = string.format('%.3f', tonumber(last) + 0.001) end
  redis.call('ZADD', key, at, member)
end

-- The sockets of these members: member, incarnation, socket.
local function told_key(room) return base .. ':told:' .. room end
local function sockets_of(room, member)
  return redis.call('ZRANGEBYLEX', told_key(room), '[' .. member .. '\0', '(' .. member .. '\1', 'LIMIT', 0, 1)
end
local function told(room, member) return #sockets_of(room, member) > 0 end
local function told_member(incarnation, id, member) return member .. '\0' .. incarnation .. '\0' .. id end

-- Appends an announcement to an answer: what, room, socket, user, metadata, time of the join (ms).
local function say(answer, what, room, incarnation, id, user, at)
  local metadata = redis.call('HGET', connection_key(incarnation, id), 'md') or ''
  for _, part in ipairs({ what, room, id, user, metadata, at }) do answer[#answer + 1] = part end
end

-- Removes a socket of a member. If it was the member's last, the answer announces that the member has left.
local function unlist(answer, room, incarnation, id, user, by)
  local member = member_of(id, user, by)
  local removed = redis.call('ZREM', told_key(room), told_member(incarnation, id, member))
  if removed == 0 or told(room, member) then return end
  local at = redis.call('ZSCORE', roster_key(room), member) or now
  redis.call('ZREM', roster_key(room), member)
  say(answer, 'left', room, incarnation, id, user, at)
end

-- The header of every answer to a read: live incarnations, those that are being rewritten, and the number that wait to
-- be reaped.
local function header()
  local expired = redis.call('ZCOUNT', base .. ':nodes', '-inf', now) + redis.call('ZCOUNT', base .. ':staging', '-inf', now)
  return { live(), redis.call('ZRANGEBYSCORE', base .. ':staging', '(' .. now, '+inf'), expired }
end
