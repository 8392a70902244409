-- Removes a part of the data of an incarnation whose lease has ended. Several nodes may run it at once.
-- ARGV: how much, ttl of an absent user's status (ms), who asks ('' for a node that goes).
-- Answers { how many are not done, ('left', room, socket, user, metadata, joined at) … }.
local budget, status_ttl, asks = tonumber(ARGV[1]), ARGV[2], ARGV[3]

-- After a stall of Redis every lease has ended, and older requests run first. That alone does not mean that a node is
-- dead.
if asks ~= '' and not leased(':nodes', asks) and not leased(':staging', asks) then return { 0 } end

local set, incarnation
for _, candidate in ipairs({ ':nodes', ':staging' }) do
  local found = redis.call('ZRANGEBYSCORE', base .. candidate, '-inf', now, 'LIMIT', 0, 1)
  if found[1] then
    set, incarnation = candidate, found[1]
    break
  end
end
if not incarnation then return { 0 } end

local answer = { 1 }
local connections = base .. ':conns:' .. incarnation

local function close(id)
  local key = connection_key(incarnation, id)
  local fields = redis.call('HGETALL', key)
  local user = redis.call('HGET', key, 'u') or ''
  for at = 1, #fields, 2 do
    local name, letter = fields[at], string.sub(fields[at + 1], -1)
    if string.sub(name, 1, 1) == 'r' and (letter == 'e' or letter == 's') then
      unlist(answer, string.sub(name, 2), incarnation, id, user, letter == 'e' and 'u' or 's')
    end
  end
  redis.call('UNLINK', key)
  redis.call('ZREM', connections, id)
  budget = budget - 1 - #fields / 2
end

local function forget(kind, prefix)
  local list = base .. ':' .. kind .. ':' .. incarnation
  for _, name in ipairs(redis.call('ZRANGE', list, 0, math.max(budget, 1) - 1)) do
    redis.call('UNLINK', members_key(incarnation, prefix .. name))
    forget_group(incarnation, prefix .. name, status_ttl)
    budget = budget - 1
  end
  return redis.call('EXISTS', list) == 0
end

for _, id in ipairs(redis.call('ZRANGE', connections, 0, budget - 1)) do
  if budget <= 0 then return answer end
  close(id)
end
if budget <= 0 or not forget('rooms', '') or budget <= 0 or not forget('users', USER) then return answer end

redis.call('ZREM', base .. set, incarnation)
answer[1] = redis.call('ZCOUNT', base .. ':nodes', '-inf', now) + redis.call('ZCOUNT', base .. ':staging', '-inf', now)
return answer
