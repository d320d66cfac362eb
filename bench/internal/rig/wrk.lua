-- What wrk sends: requests of random users. The first argument is a file with a
-- Cookie header a line (an empty line is a visitor without one), the second a seed.
local prepared = {}

function init(args)
  math.randomseed(tonumber(args[2]))
  for cookie in io.lines(args[1]) do
    local headers = { Accept = "*/*" }
    if cookie ~= "" then
      headers.Cookie = cookie
    end
    prepared[#prepared + 1] = wrk.format("GET", nil, headers)
  end
end

function request()
  return prepared[math.random(#prepared)]
end

function done(summary, latency, _)
  local e = summary.errors
  print(string.format('result {"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"errors":%d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
