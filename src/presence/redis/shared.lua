-- The rooms of all sockets of a user. ARGV: user, at most how many. Answers { header, '1' when there are more, rooms … }.
local most, seen, answer, more = tonumber(ARGV[2]), {}, {}, '0'
for _, incarnation in ipairs(live()) do
  for _, member in ipairs(redis.call('ZRANGE', members_key(incarnation, USER .. ARGV[1]), 0, most - 1)) do
    for _, field in ipairs(redis.call('HKEYS', connection_key(incarnation, string.match(member, '^[^%z]*')))) do
      if string.sub(field, 1, 1) == 'r' and not seen[field] then
        seen[field] = true
        if #answer >= most then
          more = '1'
        else
          answer[#answer + 1] = string.sub(field, 2)
        end
      end
    end
  end
end
return { header(), more, answer }
