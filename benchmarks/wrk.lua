-- Send the requests that the environment names, one after another. Print the result as one line of JSON.
local headers = { ['Content-Type'] = 'application/json', Authorization = os.getenv('ASK_AUTHORIZATION') }
local requests, at = {}, 0

function init()
  for body in io.lines(os.getenv('ASK_BODIES')) do
    requests[#requests + 1] = wrk.format('POST', wrk.path, headers, body)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local wrong = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%f,"errors":%d,"p50":%f,"p99":%f}\n',
    summary.requests, summary.duration / 1e6,
    wrong.connect + wrong.read + wrong.write + wrong.status + wrong.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
