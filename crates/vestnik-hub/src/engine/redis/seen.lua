-- When users of a site were seen, on all nodes. KEYS[1] counter. ARGV: base, member, seconds a node lives
-- without a sign, site of 8 bytes; then ids of 8 bytes, or `all`, first rank and count.
-- Answers pairs of id and unix second: 0 for who is on another node now. Who was never seen is left out.
local base, site = ARGV[1], ARGV[4]
local now = tonumber(redis.call('TIME')[1])
local others = {}
for _, it in ipairs(redis.call('ZRANGEBYSCORE', base .. 'vestnik:nodes', now - tonumber(ARGV[3]), '+inf')) do
  if it ~= ARGV[2] then others[#others + 1] = base .. 'vestnik:online:' .. it end
end
local seen_key = base .. 'vestnik:seen:' .. site
local ids = {}
if ARGV[5] == 'all' then
  ids = redis.call('ZRANGE', seen_key, ARGV[6], ARGV[6] + ARGV[7] - 1)
else
  for i = 5, #ARGV do ids[#ids + 1] = ARGV[i] end
end
local answer = {}
for _, id in ipairs(ids) do
  local seen_s = redis.call('ZSCORE', seen_key, id)
  for _, key in ipairs(others) do
    if seen_s ~= '0' and redis.call('HEXISTS', key, '\2' .. site .. id) == 1 then seen_s = '0' end
  end
  if seen_s then
    answer[#answer + 1] = id
    answer[#answer + 1] = seen_s
  end
end
return answer
