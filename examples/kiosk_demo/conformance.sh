#!/usr/bin/env bash
# mmdg-live with a simulated camera on a socket of its own, and `mmdg kiosk conformance` against it; its exit code.
# RUN: folder of mmdg and mmdg-live (default: those on the PATH).
set -euo pipefail
run=${RUN:+$RUN/}
folder=$(mktemp -d "${TMPDIR:-/tmp}/mmdg-conformance-XXXXXX")  # mode 700
endpoint=ipc://$folder/kiosk
"${run}mmdg-live" --config "$(dirname "$0")/live.yaml" --kiosk "$endpoint" >"$folder/live.log" 2>&1 &
live=$!
trap 'kill $live 2>/dev/null || true; wait $live || true; rm -rf "$folder"' EXIT
for _ in $(seq 90); do
  code=0
  "${run}mmdg" kiosk begin "$endpoint" --camera door --deadline-ms 500 >/dev/null 2>&1 || code=$?
  if [ "$code" != 2 ]; then break; fi  # 2: no engine yet, or no frame yet
  if ! kill -0 $live 2>/dev/null; then cat "$folder/live.log" >&2; exit 2; fi
  sleep 0.5
done
"${run}mmdg" kiosk conformance "$endpoint" "$@"
