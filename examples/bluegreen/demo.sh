#!/bin/sh
# Deploys green over blue by mv, and blue over green by a symlink, each time by
# kill -HUP, under a client that asks all the time and never retries.
set -eu
cd "$(dirname "$0")"
tmp=$(mktemp -d)
master= client=

finish() {
	touch "$tmp/enough"
	if [ -n "$client" ]; then wait "$client" || true; fi
	if [ -n "$master" ]; then
		kill -TERM "$master" 2>/dev/null || true
		wait "$master" || true
	fi
	rm -rf "$tmp"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

say() { printf '\n# %s\n' "$*"; }

# within tries for ten seconds, else the demo has failed.
within() {
	for _ in $(seq 100); do
		if "$@" 2>/dev/null; then return; fi
		sleep 0.1
	done
	echo "did not happen within 10 s: $*" >&2
	cat "$tmp/log" >&2
	exit 1
}

status() { "$tmp/batonctl" status --json --runtime-dir "$tmp/run"; }
address() { port=$(status | sed -n 's/.*"address": *"[^"]*:\([0-9]*\)".*/\1/p') && [ -n "$port" ]; }
answer() { curl -sS --fail --max-time 5 "http://127.0.0.1:$port/"; }
serves() { [ "$(answer)" = "$1" ]; }
answers() { [ "$(wc -l <"$tmp/answers")" -gt "$1" ]; }
deploy() {
	kill -HUP "$master"
	within serves "$1"
	# and some more of the client's answers
	within answers $(($(wc -l <"$tmp/answers") + 20))
}

say "two builds of one program"
go build -ldflags "-X main.version=blue" -o "$tmp/blue" .
go build -ldflags "-X main.version=green" -o "$tmp/green" .
go build -o "$tmp/batonctl" ../../cmd/batonctl
ls "$tmp"

say "blue starts"
cp "$tmp/blue" "$tmp/app"
PORT=0 BATON_WORKERS=2 BATON_RUNTIME_DIR="$tmp/run" "$tmp/app" 2>"$tmp/log" &
master=$!
within address
within serves blue
echo "master $master answers on port $port: $(answer)"

say "a client asks, a connection for each request"
: >"$tmp/answers"
while [ ! -e "$tmp/enough" ]; do
	answer >>"$tmp/answers" 2>&1 || echo "LOST" >>"$tmp/answers"
done &
client=$!
within answers 20

say "green, by mv"
cp "$tmp/green" "$tmp/app.new"
mv "$tmp/app.new" "$tmp/app"
deploy green
"$tmp/batonctl" status --runtime-dir "$tmp/run"

say "blue again, by a symlink"
ln -s "$tmp/blue" "$tmp/app.new"
mv "$tmp/app.new" "$tmp/app"
deploy blue

touch "$tmp/enough"
wait "$client"
client=
say "what the client saw"
uniq -c "$tmp/answers"

say "stop"
kill -TERM "$master"
code=0
wait "$master" || code=$?
master=
echo "the master's exit code: $code"

say "the log"
cat "$tmp/log"

# Every answer is a version, in this order, and nothing else.
[ "$(uniq "$tmp/answers" | tr '\n' ' ')" = "blue green blue " ] && [ "$code" = 0 ]
