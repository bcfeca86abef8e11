-- What is kept after a position (Q-093, Q-195). KEYS[1] counter. ARGV: base, position of 13 bytes,
-- most messages, then the indexes. Answers epoch, counter, 1 if a limit cut something off, messages.
local base, position, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
local ids, known, gap = {}, {}, 0
for i = 4, #ARGV do
  local found = redis.call('ZREVRANGEBYLEX', base .. ARGV[i], '+', '(' .. position, 'LIMIT', 0, most + 1)
  for _, id in ipairs(found) do
    if not known[id] then
      known[id] = true
      ids[#ids + 1] = id
    end
  end
  local cut = redis.call('GET', base .. 'vestnik:cut:' .. ARGV[i])
  if cut and cut > position then gap = 1 end
end
table.sort(ids)
local answer = {
  redis.call('GET', base .. 'server:startdate') or '0', redis.call('GET', KEYS[1]) or '0', gap}
local first = 1
if #ids > most then
  first = #ids - most + 1
  answer[3] = 1
end
for i = first, #ids do
  local message = redis.call('GET', base .. 'message:' .. ids[i])
  if message then answer[#answer + 1] = message end
end
return answer
