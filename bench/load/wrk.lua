-- For wrk: prints the figures in a form that the harness reads. With an argument N, each request is
-- one of GET /users/1 to GET /users/N, in an order of its own for each thread.
local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("seed", threads)
end

function init(args)
  local count = tonumber(args[1])
  if not count then
    return
  end
  local requests = {}
  for id = 1, count do
    requests[id] = wrk.format("GET", "/users/" .. id)
  end
  math.randomseed(seed)
  function request()
    return requests[math.random(count)]
  end
end

function done(summary, latency)
  local errors = summary.errors
  local failures = errors.connect + errors.read + errors.write + errors.timeout
  print(("figures %d %d %d %d %d %d %d"):format(summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency.max, errors.status, failures))
end
