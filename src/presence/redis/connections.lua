-- A page of the namespace's connections, by node and id.
-- ARGV: how many, how many bytes, and where the page before ended: incarnation, id.
-- Answers { header, (incarnation, id, connection) … }; the connection is empty in a last row that is beyond the bytes.
local limit, bytes, after, after_id = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]

local function node_of(incarnation) return string.gsub(incarnation, '~[^~]*$', '') end

local answer = {}
for _, incarnation in ipairs(live()) do
  local same = after and node_of(incarnation) == node_of(after)
  if limit > 0 and (not after or same or incarnation > after) then
    local from = same and '(' .. after_id or '-'
    local ids = redis.call('ZRANGEBYLEX', base .. ':conns:' .. incarnation, from, '+', 'LIMIT', 0, limit)
    for _, id in ipairs(ids) do
      local connection = redis.call('HGETALL', connection_key(incarnation, id))
      bytes = bytes - size_of(connection)
      if bytes < 0 and #answer > 0 then
        answer[#answer + 1] = { incarnation, id, {} }
        return { header(), answer }
      end
      answer[#answer + 1] = { incarnation, id, connection }
    end
    limit = limit - #ids
  end
end
return { header(), answer }
