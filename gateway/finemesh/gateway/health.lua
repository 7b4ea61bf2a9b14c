-- The name of the service that is asked for is in the body of a health check, where no route can match it.
-- Read it, and leave it as metadata of the request, which a caller cannot set. Everything else passes untouched.
local PREFIX = "/grpc.health.v1.Health/"

function envoy_on_request(request)
  head_of_download(request:headers())  -- of downloads.lua
  if request:headers():get(":path"):sub(1, #PREFIX) ~= PREFIX then
    return
  end
  local body = request:body()
  local bytes = body and body:getBytes(0, body:length()) or ""
  -- A gRPC frame: one byte of flags, four of length; then field 1 of HealthCheckRequest: tag 0x0a, length, name.
  local service = ""
  if #bytes > 7 and bytes:byte(1) == 0 and bytes:byte(6) == 0x0a and bytes:byte(7) < 128 then
    service = bytes:sub(8, 7 + bytes:byte(7))
  end
  request:streamInfo():dynamicMetadata():set("finemesh.health", "service", service)
  request:clearRouteCache()
end
