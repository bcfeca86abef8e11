-- The next portion of what was stored in a span of ids, ascending. KEYS[1] counter. ARGV: base, position
-- behind which it begins and id with which it ends (13 bytes each), most messages of an index, most bytes,
-- then the indexes. Answers epoch, counter, 1 if there may be more, id up to which everything was read,
-- messages.
local base, position, most, most_bytes = ARGV[1], ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local ids, known, last, more = {}, {}, ARGV[3], 0
for i = 6, #ARGV do
  local found = redis.call('ZRANGEBYLEX', base .. ARGV[i], '(' .. position, '[' .. last, 'LIMIT', 0, most)
  -- Behind the last one of a full portion this index may have more, so nothing behind it counts.
  if #found == most then
    more, last = 1, found[most]
  end
  for _, id in ipairs(found) do
    if not known[id] then
      known[id] = true
      ids[#ids + 1] = id
    end
  end
end
table.sort(ids)
local answer = {
  redis.call('GET', base .. 'server:startdate') or '0', redis.call('GET', KEYS[1]) or '0', more, last}
local bytes = 0
for _, id in ipairs(ids) do
  if id > last then break end
  if bytes >= most_bytes then
    answer[3] = 1
    break
  end
  local message = redis.call('GET', base .. 'message:' .. id)
  if message then
    answer[#answer + 1] = message
    bytes = bytes + #message
  end
  answer[4] = id
end
if answer[3] == 0 then answer[4] = ARGV[3] end
return answer
