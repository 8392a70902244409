-- A user's status and sockets. ARGV: user. Answers { header, status as JSON or '', sockets }.
local sockets = 0
for _, incarnation in ipairs(live()) do
  sockets = sockets + redis.call('ZCARD', members_key(incarnation, USER .. ARGV[1]))
end
return { header(), redis.call('HGET', base .. ':status:' .. ARGV[1], 'v') or '', sockets }
