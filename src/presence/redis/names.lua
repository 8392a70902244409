-- A page of rooms or users, by name, with how many sockets each has.
-- ARGV: 'rooms' or 'users', how many, the last name of the page before.
-- Answers { header, last name looked at or '' at the end, (name, sockets, first join (ms), status) … }.
local kind, limit, after = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local prefix = kind == 'users' and USER or ''
local nodes = live()

local function row(name)
  local sockets, first = 0, false
  for _, incarnation in ipairs(nodes) do
    local key = members_key(incarnation, prefix .. name)
    local count = redis.call('ZCARD', key)
    sockets = sockets + count
    if count > 0 then
      local oldest = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
      if not first or tonumber(oldest) < tonumber(first) then first = oldest end
    end
  end
  local status = kind == 'users' and redis.call('HGET', base .. ':status:' .. name, 'v') or ''
  -- Names that only dead nodes hold are not shown.
  return sockets > 0 and { name, sockets, first, status or '' }
end

local names = redis.call('ZRANGEBYLEX', base .. ':' .. kind, after and '(' .. after or '-', '+', 'LIMIT', 0, limit + 1)
local answer, last = {}, ''
for at, name in ipairs(names) do
  if at > limit then
    last = names[limit]
    break
  end
  answer[#answer + 1] = row(name) or nil
end
return { header(), last, answer }
