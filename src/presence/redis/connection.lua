-- One connection. ARGV: its id. Answers { header, incarnation, connection }, the last two empty when nobody has it.
for _, incarnation in ipairs(live()) do
  local found = redis.call('HGETALL', connection_key(incarnation, ARGV[1]))
  if #found > 0 then return { header(), incarnation, found } end
end
return { header(), '', {} }
