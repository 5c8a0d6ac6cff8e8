-- Asks verifyClient whether the device that sent a CONNECT may connect, and puts the answer into variables:
--   sess.verdict  allow, continue, or anything else: refused
--   sess.code     why, for the log
--   sess.who      the session's line in the register of sessions
-- In any doubt the verdict is not set to allow or continue: the rules then refuse.

local function setting(name)
  local value = os.getenv(name)
  if not value or value == '' then error('set ' .. name .. ' (see haproxy.cfg)') end
  return value
end

-- Read once, at the start, before HAProxy gives up root.
local function key()
  local path = setting('TRUST_BROKER_KEY_FILE')
  local file = assert(io.open(path, 'r'))
  local line = file:read('l')
  file:close()
  assert(line and line:match('^[^:%s]+:%S+$'), path .. ' must hold one line, key:token')
  return line
end

local URL = setting('TRUST_URL'):gsub('/+$', '')
if not (URL:match('^https://') or URL:match('^http://127%.') or URL:match('^http://%[::1%]')) then
  error('TRUST_URL must be https://, or on this machine: a key travels to it')
end
local KEY = key()
local BROKER_BINDS_TOKENS = os.getenv('BROKER_BINDS_TOKENS') == 'true'
local REGISTER_MAX = 599 -- characters: a key of the table `sessions`, which would be cut off silently
local TIMEOUT = 2500 -- ms; the function's own deadline is 2 s

local AUTHORIZATION -- base64 is a converter, which needs a transaction

local function quoted(text)
  return '"' .. text:gsub('[%c"\\\127]', function(c) return string.format('\\u%04x', c:byte()) end) .. '"'
end

local function number_of(time) -- 2026-06-01T12:00:00Z
  local y, m, d, h, min, s = (time or ''):match('^(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)')
  if not y then return 0 end
  y, m, d = tonumber(y), tonumber(m), tonumber(d)
  if m <= 2 then y, m = y - 1, m + 12 end -- days since 1970, Gregorian
  local days = 365 * y + y // 4 - y // 100 + y // 400 + (153 * (m - 3) + 2) // 5 + d - 719469
  return days * 86400 + tonumber(h) * 3600 + tonumber(min) * 60 + tonumber(s)
end

-- The fingerprints (SHA-256, the first 16 hex digits) of the leaf, and of what was sent after it, as the answer tells
-- them: one list for each certificate, and with ECDSA two in it, whichever the device has sent. Read by hand, because
-- json_query takes the second index of `[0][1]` for any list's. No text in the answer can look like it: its quotes are
-- escaped.
local function fingerprints(body)
  local lists, leaf, after = body:match('"fingerprintsSha256":(%b[])') or '[]', {}, {}
  local into = leaf
  for one in lists:sub(2, -2):gmatch('%b[]') do
    for sha256 in one:gmatch('%x+') do into[#into + 1] = sha256:sub(1, 16) end
    into = after
  end
  return table.concat(leaf, ','), table.concat(after, ',')
end

core.register_action('verify_client', {'tcp-req'}, function(txn)
  if txn:get_var('sess.verdict') then return end
  txn:set_var('sess.verdict', 'error')
  txn:set_var('sess.code', 'unavailable')
  local cid = txn:get_var('sess.cid')
  if not cid or cid == '' then -- the broker would make up a name that no verdict has bound
    txn:set_var('sess.code', 'client_id_missing')
    return
  end
  AUTHORIZATION = AUTHORIZATION or 'Basic ' .. txn.c:base64(KEY)
  local fields = { '"tls":true', '"clientId":' .. quoted(cid) }
  local sni, leaf, chain = txn.f:ssl_fc_sni(), txn.f:ssl_c_der(), txn.f:ssl_c_chain_der()
  if sni and sni ~= '' then fields[#fields + 1] = '"serverName":' .. quoted(sni) end
  if leaf and leaf ~= '' then fields[#fields + 1] = '"certificateDer":"' .. txn.c:base64(leaf) .. '"' end
  if chain and chain ~= '' then fields[#fields + 1] = '"chainDer":"' .. txn.c:base64(chain) .. '"' end
  local body = '{' .. table.concat(fields, ',') .. '}'
  local answer = core.httpclient():post{
    url = URL .. '/api/v0002/verifyClient',
    headers = {
      ['content-type'] = { 'application/json' },
      ['content-length'] = { tostring(#body) }, -- else the body is sent in chunks
      ['authorization'] = { AUTHORIZATION },
    },
    body = body,
    timeout = TIMEOUT,
  }
  if not answer or answer.status ~= 200 or not answer.body then
    core.Warning('verifyClient did not answer: ' .. tostring(answer and answer.status or 'no connection'))
    return
  end
  local function told(path) return txn.c:json_query(answer.body, path) end
  local decision, org = told('$.decision'), told('$.orgId')
  txn:set_var('sess.code', told('$.code') or 'unavailable')
  local class, type_id, device_id = told('$.identity.class'), told('$.identity.typeId'), told('$.identity.deviceId')
  -- A verdict that is not bound to this client ID says who holds the certificate, not that the client ID is theirs.
  if decision == 'allow' and told('$.bound') ~= 1 then decision = 'unbound' end -- json_query says true as 1
  if (decision ~= 'allow' and decision ~= 'continue') or not org or org == '' then
    txn:set_var('sess.verdict', decision == 'deny' and 'deny' or 'error')
    return
  end
  -- The broker knows whose token it is; that it is this client's, and not that of a device which needs a certificate
  -- beside its token, nobody has looked at yet. Who names no user is told by the broker that it must.
  local user = txn:get_var('sess.user')
  if decision == 'continue' and user and not BROKER_BINDS_TOKENS and user:gsub('/', ':') ~= cid then
    txn:set_var('sess.verdict', 'deny')
    txn:set_var('sess.code', 'token_of_another')
    return
  end
  local identity = class and type_id and table.concat({ class, type_id, device_id or '' }, ':') or '-'
  local own, sent_after = fingerprints(answer.body)
  if decision == 'allow' and own == '' then -- functions that are older than this callout: no denial would end it
    txn:set_var('sess.code', 'unavailable')
    return
  end
  local serial = leaf and leaf ~= '' and txn.c:hex(txn.f:ssl_c_serial()):lower() or '-'
  local who = table.concat({
    txn.f:src() .. ':' .. txn.f:src_port(), org, identity, told('$.ca.id') or '-',
    own, serial, tostring(number_of(told('$.expiresAt'))), sent_after,
  }, '|')
  if #who > REGISTER_MAX then
    txn:set_var('sess.code', 'too_long_to_register')
    return
  end
  txn:set_var('sess.who', who)
  txn:set_var('sess.verdict', decision)
end, 0)
