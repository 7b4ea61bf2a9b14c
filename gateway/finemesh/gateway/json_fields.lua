-- Which fields a JSON body has, as metadata of the request: what the transcoder does not know it passes over, so that
-- nobody behind it could tell a typo. unknown_fields.lua judges them, once the method is known.
local DEEPEST = 128  -- more than the transcoder reads

-- The paths of all keys, a line each, their parts apart by tabs; neither can stand in a key. Elements of an array
-- share its path. Faulty JSON is left to the transcoder.
local function paths_of(text)
  local seen, paths, above, here, at = {}, {}, {}, "", 1
  while #above <= DEEPEST do
    at = text:find('[{}"]', at)
    if not at then
      break
    end
    local sign = text:sub(at, at)
    if sign == "{" then
      above[#above + 1] = here
    elseif sign == "}" then
      here = table.remove(above) or ""
    else
      local last = at
      repeat
        last = text:find('["\\]', last + 1)
        local escaped = last and text:sub(last, last) == "\\"
        last = escaped and last + 1 or last
      until not escaped
      if not last then
        break
      end
      if text:find("^%s*:", last + 1) then
        local parent = above[#above] or ""
        here = (parent == "" and "" or parent .. "\t") .. text:sub(at + 1, last - 1)
        if not seen[here] then
          seen[here] = true
          paths[#paths + 1] = here
        end
      end
      at = last
    end
    at = at + 1
  end
  return table.concat(paths, "\n")
end

function envoy_on_request(request)
  local headers = request:headers()
  if headers:get(":method") == "GET" or (headers:get("content-type") or ""):sub(1, 16) == "application/grpc" then
    return
  end
  if headers:get(":path"):sub(1, 4) ~= "/v1/" then
    return
  end
  local chunks, bytes = {}, 0
  for chunk in request:bodyChunks() do
    bytes = bytes + chunk:length()
    chunks[#chunks + 1] = chunk:getBytes(0, chunk:length())
    if bytes > MAX_BYTES or not chunks[1]:find("^%s*{") then  -- no request, or the file of a stream
      return
    end
  end
  local paths = paths_of(table.concat(chunks))
  if paths ~= "" then
    request:streamInfo():dynamicMetadata():set("finemesh.json", "paths", paths)
  end
end
