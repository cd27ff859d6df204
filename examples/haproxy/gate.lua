-- Asks rotogate about a request. The variable txn.gate has the status of the answer; 503 if there is none. On 200 the request
-- gets the identity of the answer.
local address = "http://127.0.0.1:8082/"
local of_the_connection = {
  ["content-length"] = true, ["transfer-encoding"] = true, connection = true, upgrade = true, expect = true, te = true,
}
-- Add your own headers of [identity].
local identity = {
  "x-auth-subject", "x-auth-account", "x-auth-client", "x-auth-scope", "x-auth-session", "x-auth-issuer", "x-auth-roles",
  "cookie", -- the client's cookies without those of the gate
}
local of_a_refusal = { "www-authenticate", "retry-after", "x-auth-detail", "x-auth-login" }

core.register_action("rotogate", { "http-req" }, function(txn)
  local headers = {}
  for name, values in pairs(txn.http:req_get_headers()) do
    if not of_the_connection[name] then
      headers[name] = {}
      for _, value in pairs(values) do table.insert(headers[name], value) end
    end
  end
  headers["x-forwarded-method"] = { txn.f:method() }
  headers["x-forwarded-host"] = { txn.f:req_hdr("host") or "" }
  headers["x-forwarded-uri"] = { txn.f:pathq() }
  headers["x-forwarded-proto"] = { txn.f:ssl_fc() == 1 and "https" or "http" }
  headers["x-forwarded-for"] = { txn.f:src() }
  txn:set_var("txn.gate", 503)
  local ok, answer = pcall(function()
    return core.httpclient():get{ url = address, headers = headers, timeout = 2000 }
  end)
  if not ok or not answer or not answer.status or answer.status == 0 then return end
  txn:set_var("txn.gate", answer.status)
  local function first(name)
    local list = answer.headers and answer.headers[name]
    local value = list and (list[0] or list[1])
    return value ~= "" and value or nil
  end
  for _, name in ipairs(of_a_refusal) do
    local value = first(name)
    if value then txn:set_var("txn." .. name:gsub("-", "_"), value) end
  end
  if answer.status ~= 200 then return end
  for _, name in ipairs(identity) do
    local value = first(name)
    if value then txn.http:req_set_header(name, value) else txn.http:req_del_header(name) end
  end
end, 0)
