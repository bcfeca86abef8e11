-- Which receivers somebody listens to on other nodes. KEYS[1] counter. ARGV: base, member, seconds a node
-- lives without a sign, 1 if the presence keys of Push server 2.0 count, then receivers of 17 bytes.
-- Answers a digit for each.
local base = ARGV[1]
local now = tonumber(redis.call('TIME')[1])
local others = {}
for _, it in ipairs(redis.call('ZRANGEBYSCORE', base .. 'vestnik:nodes', now - tonumber(ARGV[3]), '+inf')) do
  if it ~= ARGV[2] then others[#others + 1] = base .. 'vestnik:online:' .. it end
end
local answer = {}
for i = 5, #ARGV do
  local found, kind = 0, string.byte(ARGV[i], 1)
  for _, key in ipairs(others) do
    if found == 0 then found = redis.call('HEXISTS', key, ARGV[i]) end
  end
  if found == 0 and ARGV[4] == '1' and kind < 2 then
    local prefix = kind == 0 and 'channel:online:' or 'pubchannel:online:'
    found = redis.call('EXISTS', base .. prefix .. string.sub(ARGV[i], 2))
  end
  answer[#answer + 1] = found
end
return table.concat(answer)
