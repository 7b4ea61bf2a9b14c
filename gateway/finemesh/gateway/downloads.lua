-- What a service says of a stream that gRPC has no words for: the status and the length of the HTTP response. A
-- download that breaks off is then seen to be too short, and one that was continued is 206 (RFC 9110, 15.3.7).
-- Seen at once, that is, because the connection of HTTP/1.1 ends with it.

-- HEAD of a download: gRPC knows no such method. The service is asked as by GET, and told to send headers alone.
function head_of_download(headers)
  headers:remove("x-finemesh-head")
  local path = headers:get(":path"):match("^[^?]*")
  if headers:get(":method") == "HEAD" and path:sub(-9) == ":download" then
    headers:replace(":method", "GET")
    headers:add("x-finemesh-head", "1")
  end
end

function envoy_on_response(response)
  local headers = response:headers()
  local length = headers:get("x-finemesh-length")
  if not length or (headers:get("content-type") or ""):sub(1, 16) == "application/grpc" then
    return
  end
  headers:remove("x-finemesh-length")
  headers:replace("content-length", length)
  response:streamInfo():drainConnectionUponCompletion()
  local status = headers:get("x-finemesh-status")
  if status then
    headers:remove("x-finemesh-status")
    headers:replace(":status", status)
  end
end
