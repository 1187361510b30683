#!/usr/bin/env bash
# Everything shardfs does, once, on three checkpoints of a really fine-tuned MiniLM-L6 (23 M parameters).
# `make demo` installs what is missing and runs it. It works in a folder of its own, compares the bytes
# it reads with the originals, and leaves nothing behind, also when a step fails.
set -euo pipefail

repository=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/shardfs-demo.XXXXXX")
server=
mkdir "$work/tmp"
export TMPDIR="$work/tmp"
export XDG_CACHE_HOME="$work/cache" XDG_CONFIG_HOME="$work/config"
export SHARDFS_AUTHOR="Ada <ada@example.org>"

cleanup() {
  local status=$? point
  trap - EXIT INT TERM
  set +e
  cd /
  while read -r point; do
    case $point in
      "$work"/*) shardfs umount "$point" >/dev/null 2>&1 || fusermount3 -uz "$point" ;;
    esac
  done < <(cut -d' ' -f2 /proc/self/mounts)
  if [ -n "$server" ]; then
    kill "$server" 2>/dev/null
    wait "$server" 2>/dev/null
  fi
  rm -rf "$work"
  [ "$status" = 0 ] || printf '\ndemo: failed with exit status %s\n' "$status" >&2
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[36m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi

step() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }

run() { # shows a shell line, then runs it
  printf '%s$ %s%s\n' "$dim" "$1" "$plain"
  eval "$1"
}

same() { cmp "$1" "$2" && echo "identical: ${2#"$work"/}"; }

sizes=()
remember() { # VERSION: how many bytes the store speaks for and how many it keeps, so far
  sizes+=("$1 $(shardfs stats --json | python -c \
    'import json, sys; s = json.load(sys.stdin); print(s["logical_bytes"], s["stored_bytes"])')")
}

table() {
  printf '%s\n' "${sizes[@]}" | python -c '
import sys
rows, before = [], (0, 0)
for line in sys.stdin:
    name, *numbers = line.split()
    now = tuple(map(int, numbers))
    rows.append((name, now[0] - before[0], now[1] - before[1]))
    before = now
rows.append(("all", *before))
print(f"{chr(32):14}{chr(32):4}logical MB   stored MB")
for name, logical, stored in rows:
    print(f"{name:14}{logical / 1e6:14.1f}{stored / 1e6:12.1f}")'
}

step "Three checkpoints: the base model and two rounds of fine-tuning"
series=$work/checkpoints
python "$repository/tests/checkpoints.py" "$series" --versions 3 --train top >"$work/training.log" 2>&1 ||
  { cat "$work/training.log"; exit 1; }
(cd "$work" && run "ls -sh checkpoints/epoch-0")

step "A repository and its first commit"
mkdir -p "$work/project"
cd "$work/project"
run "shardfs init"
mkdir weights
cp "$series"/epoch-0/* weights/
run "shardfs status"
run "shardfs add weights"
run "shardfs commit -m 'initial' --meta epoch=0 --tag v1"
remember initial

step "The next version"
cp "$series"/epoch-1/model.* weights/
run "shardfs add weights/model.safetensors 'weights/*.pt'"
run "shardfs status"
run "shardfs commit -m 'epoch 1' --meta epoch=1 --meta lr=5e-5"
remember epoch-1
run "shardfs log"
run "shardfs diff v1 HEAD"
run "shardfs show HEAD"
run "shardfs ls HEAD weights"
run "shardfs cat HEAD:weights/config.json | head -4"

step "Mount: versions are directories"
run "shardfs mount ./models"
run "ls models models/versions"
run "ls -l models/latest/weights"
same weights/model.safetensors models/latest/weights/model.safetensors
same "$series/epoch-0/model.pt" models/versions/0001-initial/weights/model.pt
run "python -c \"import torch
saved = torch.load('models/latest/weights/model.pt', mmap=True)
print('epoch', saved['epoch'], '-', len(saved['model']), 'tensors')\""

step "What a program writes into staging becomes the next commit"
run "cp $series/epoch-2/model.pt models/staging/weights/model.pt"
run "shardfs status"
run "shardfs commit -m 'epoch 2' --meta epoch=2"
remember epoch-2
run "python -c \"import torch
saved = torch.load('models/latest/weights/model.pt')
saved['note'] = 'fine-tuned on the language reference'
torch.save(saved, 'models/staging/weights/model.pt')\""
run "cp $series/epoch-2/model.safetensors models/staging/weights/"
run "echo 'epoch 2, both containers' > models/.shardfs/commit"
remember epoch-2-both
run "shardfs log"
run "ls models/versions"
same "$series/epoch-2/model.safetensors" models/latest/weights/model.safetensors

step "Plain files, without a mount"
run "shardfs checkout v1 weights/model.pt --into ../restored"
same "$series/epoch-0/model.pt" ../restored/weights/model.pt
run "shardfs export HEAD~1 ../exported"
same "$series/epoch-2/model.pt" ../exported/weights/model.pt
run "shardfs import ../exported -m 'import an exported folder'"
remember import
run "shardfs status"

step "What is read again becomes a plain file, which the kernel reads itself"
run "shardfs warm v1:weights"
run "shardfs pin v1:weights/model.safetensors"
same "$series/epoch-0/model.safetensors" models/tags/v1/weights/model.safetensors
run "shardfs warm v1 --check"
run "shardfs unpin --all"

step "Branches and tags"
run "shardfs branch experiment v1"
run "shardfs switch experiment"
run "shardfs branch"
run "shardfs switch main"
run "shardfs tag best HEAD~1"
run "shardfs tag"
run "ls models/branches models/tags"

step "A server, a push"
port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=http://127.0.0.1:$port/demo
printf '%s$ shardfs serve --root ../srv --anonymous write --listen 127.0.0.1:%s &%s\n' "$dim" "$port" "$plain"
mkdir -p ../srv
shardfs serve --root ../srv --anonymous write --listen "127.0.0.1:$port" >"$work/serve.log" 2>&1 &
server=$!
for _ in $(seq 100); do
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  kill -0 "$server" || { cat "$work/serve.log"; exit 1; }
  sleep 0.1
done
run "shardfs remote add origin $url"
run "shardfs push"

step "Another machine: a clone has the history at once, bytes come when they are read"
cd "$work"
run "shardfs clone $url copy"
run "du -sh project/.shardfs copy/.shardfs | sed 's/^/    /'"
run "shardfs -C copy log"
run "shardfs -C copy checkout HEAD~1 weights/model.safetensors --into ../from-clone"
same "$series/epoch-2/model.safetensors" "$work/from-clone/weights/model.safetensors"

step "A part of it, and reading without a network"
run "shardfs clone --dry-run --full $url"
run "shardfs -C copy prefetch HEAD~4 --tensors '*layer.0.attention*' --dry-run"
run "shardfs -C copy fetch --full HEAD~4:weights/model.safetensors"
run "shardfs -C copy --offline checkout HEAD~4 weights/model.safetensors --into ../offline"
same "$series/epoch-0/model.safetensors" "$work/offline/weights/model.safetensors"
run "shardfs -C copy prefetch HEAD --check || echo 'not ready for the trip'"

step "Another machine: no clone at all"
run "shardfs mount ./remote-models --remote $url"
run "ls remote-models/versions"
same "$series/epoch-1/model.pt" "$work/remote-models/versions/0002-epoch-1/weights/model.pt"
run "shardfs mounts"

step "Back again: commit in the clone, push, pull"
run "echo 'trained on the language reference' > copy/NOTES.txt"
run "shardfs -C copy add NOTES.txt"
run "shardfs -C copy commit -m 'add notes'"
run "shardfs -C copy push"
cd "$work/project"
run "shardfs fetch"
run "shardfs pull"
run "shardfs cat HEAD:NOTES.txt"
remember notes

step "Care"
run "shardfs verify"
run "shardfs gc --dry-run"
run "shardfs gc"
run "shardfs stats --by codec"
run "shardfs optimize"
run "shardfs verify"
run "shardfs umount ../remote-models"
run "shardfs umount ./models"
run "shardfs doctor"

step "Versions, logical and stored bytes (each version: what it added)"
table
