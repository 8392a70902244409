-- Removes a delivered notice, if it is still the oldest: a full list may have dropped it, or another node may have
-- delivered it. KEYS: notices. ARGV: text.
if redis.call('LINDEX', KEYS[1], 0) == ARGV[1] then
  redis.call('LPOP', KEYS[1])
  return 1
end
return 0
