#!/bin/sh
# Ray's head and the agent, its only driver, in one container: a driver needs a node of its cluster beside it.
# When either ends, so does the container, and the restart policy starts both again; jobs go on from their
# last checkpoint.
set -eu

export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=/site/ray.token
export RAY_USAGE_STATS_ENABLED=0 RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
export FINEMESH_RAY_ADDRESS=127.0.0.1:6379

ray start --head --block --no-monitor --disable-usage-stats \
  --node-ip-address=127.0.0.1 --port=6379 --include-dashboard=false --temp-dir=/data/ray &
ray_pid=$!
python -m finemesh.cluster &
agent_pid=$!

stop() {
  kill -TERM "$agent_pid" "$ray_pid" 2>/dev/null || true
}
trap stop TERM INT

# Until one of the two is gone: `wait -n` is not in POSIX sh.
while kill -0 "$ray_pid" 2>/dev/null && kill -0 "$agent_pid" 2>/dev/null; do
  sleep 1 &
  wait $! || true
done
stop
wait "$agent_pid" "$ray_pid" || exit 1
