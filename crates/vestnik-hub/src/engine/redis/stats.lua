-- Statistics of all nodes; what is too old is dropped (Q-162). KEYS[1] counter. ARGV: base, seconds they
-- are shown, 1 if older ones are removed. Answers pairs of name and JSON text.
local key = ARGV[1] .. 'stats'
local now = tonumber(redis.call('TIME')[1])
local answer, stats = {}, redis.call('HGETALL', key)
for i = 1, #stats, 2 do
  local is_read, entry = pcall(cjson.decode, stats[i + 1])
  local date = is_read and type(entry) == 'table' and tonumber(entry.date)
  if date and date / 1000 < now - tonumber(ARGV[2]) then
    if ARGV[3] == '1' then redis.call('HDEL', key, stats[i]) end
  elseif date then
    answer[#answer + 1] = stats[i]
    answer[#answer + 1] = stats[i + 1]
  end
end
return answer
