-- A page of a group's members: by node, then by the time they joined.
-- ARGV: group, how many, how many bytes of their connections (0: without those), and where the page before ended:
-- incarnation, score, member.
-- Answers { header, members in all, first join (ms), (incarnation, score, member, connection) … }; with connections, that of
-- a last row that is beyond the bytes is empty.
local group, limit, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local whole = bytes > 0
local after, after_score, after_member = ARGV[4], ARGV[5], ARGV[6]

-- Incarnations begin with their node's id: a node that has been rewritten goes on where it was.
local function node_of(incarnation) return string.gsub(incarnation, '~[^~]*$', '') end

-- How many members of the key come up to and with the cursor, which may be gone.
local function passed(key)
  local before = redis.call('ZCOUNT', key, '-inf', '(' .. after_score)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, after_score, after_score)) do
    if member <= after_member then before = before + 1 end
  end
  return before
end

local total, first, answer = 0, false, {}
for _, incarnation in ipairs(live()) do
  local key = members_key(incarnation, group)
  local count = redis.call('ZCARD', key)
  total = total + count
  if count > 0 then
    local oldest = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
    if not first or tonumber(oldest) < tonumber(first) then first = oldest end
  end
  local same = after and node_of(incarnation) == node_of(after)
  if limit > 0 and (not after or same or incarnation > after) then
    local skip = same and passed(key) or 0
    local rows = redis.call('ZRANGE', key, skip, skip + limit - 1, 'WITHSCORES')
    for at = 1, #rows, 2 do
      local id = string.match(rows[at], '^[^%z]*')
      local connection = whole and redis.call('HGETALL', connection_key(incarnation, id)) or {}
      bytes = bytes - size_of(connection)
      if whole and bytes < 0 and #answer > 0 then
        answer[#answer + 1] = { incarnation, rows[at + 1], rows[at], {} }
        limit = 0
        break
      end
      answer[#answer + 1] = { incarnation, rows[at + 1], rows[at], connection }
    end
    limit = math.max(limit - #rows / 2, 0)
  end
end
return { header(), total, first or '', answer }
