-- A page of the namespace's connections, by node and id.
-- ARGV: how many, and where the page before ended: incarnation, id. Answers { header, (incarnation, id, connection) … }.
local limit, after, after_id = tonumber(ARGV[1]), ARGV[2], ARGV[3]

local function node_of(incarnation) return string.gsub(incarnation, '~[^~]*$', '') end

local answer = {}
for _, incarnation in ipairs(live()) do
  local same = after and node_of(incarnation) == node_of(after)
  if limit > 0 and (not after or same or incarnation > after) then
    local from = same and '(' .. after_id or '-'
    local ids = redis.call('ZRANGEBYLEX', base .. ':conns:' .. incarnation, from, '+', 'LIMIT', 0, limit)
    for _, id in ipairs(ids) do
      answer[#answer + 1] = { incarnation, id, redis.call('HGETALL', connection_key(incarnation, id)) }
    end
    limit = limit - #ids
  end
end
return { header(), answer }
