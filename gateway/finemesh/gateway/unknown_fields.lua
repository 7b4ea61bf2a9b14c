-- Refuses a JSON request with a field that its message has not. It comes after the filter that holds a request until it
-- is whole: by then json_fields.lua has seen all of it. Streams are not held, and not judged.

-- The field of a path that there is not, and the name of the message it was looked for in; nil if all are known.
local function unknown(path, message)
  for field in path:gmatch("[^\t]+") do
    if message == "" then  -- a value, or a message of any fields
      return nil
    elseif message:sub(1, 1) == "*" then  -- a map: the key is the caller's
      message = message:sub(2)
    else
      local kind = MESSAGES[message][field]
      if not kind then
        return field, message
      end
      message = kind
    end
  end
end

function envoy_on_request(request)
  local told = request:streamInfo():dynamicMetadata():get("finemesh.json")
  local message = told and METHODS[request:headers():get(":path")]
  if not message then
    return
  end
  for path in told["paths"]:gmatch("[^\n]+") do
    local field, where = unknown(path, message)
    if field then
      local text = "%s: there is no field %s in %s: see the protos for those it has"
      request:respond({[":status"] = "400"}, text:format(path:gsub("\t", "."), field, where))
      return
    end
  end
end
