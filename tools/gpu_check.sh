#!/usr/bin/env bash
# Everything that needs the GPU, in one go: build, op tests, oracle, portable kernels, sanitizer, faults, soak, bundled policy, start,
# bench; one table last.
#   tools/gpu_check.sh [STEP ...]      steps: build ops oracle portable sanitizer faults soak policy bench (default: these, in this
#                                      order), and by name: sweep (every configuration of the table), start (7 GB in $SCRATCH),
#                                      closed-loop (200 seeds), soak-long (10 minutes)
# Logs go to $OUT (default build/gpu-check). A step that fails or runs past its limit does not stop the next ones,
# except build. Needs nvcc, cmake, ninja, pybind11, PyTorch with CUDA, pytest, hypothesis, transformers.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-build/gpu-check}
PYTHON=${PYTHON:-python3}
GPU_ARCH=${GPU_ARCH:-90}
SCRATCH=${SCRATCH:-/tmp/flashrt-gpu-check}
mkdir -p "$OUT"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
STEPS=("$@")
[ ${#STEPS[@]} -eq 0 ] && STEPS=(build ops oracle portable sanitizer faults soak policy bench)
ROWS=()

run() {  # NAME SECONDS COMMAND...
  local name=$1 limit=$2 start=$SECONDS rc
  shift 2
  timeout -k 5 "$limit" "$@" >"$OUT/$name.log" 2>&1
  rc=$?
  local verdict=ok
  [ $rc -ne 0 ] && verdict="FAILED ($rc)"
  [ $rc -eq 124 ] && verdict="OVER ${limit}s"
  ROWS+=("$(printf '%-18s %-12s %4ds  %s' "$name" "$verdict" $((SECONDS - start)) "$(tail -n 1 "$OUT/$name.log" | cut -c1-110)")")
  return $rc
}

build() {
  cmake -S csrc -B build/csrc -G Ninja -DGPU_ARCH="$GPU_ARCH" -DPython_EXECUTABLE="$(command -v "$PYTHON")" &&
    cmake --build build/csrc && cmake --install build/csrc
}
pytest_gpu() { "$PYTHON" -m pytest -q -rP --require-gpu -p no:cacheprovider --timeout 250 "$@"; }
export -f build pytest_gpu
export PYTHON GPU_ARCH OUT

sanitize() {  # TOOL CASES OPS PIPELINE-SHAPES [OPTION...]: each tensor is an allocation of its own, so that a byte past it is seen
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$1" --error-exitcode 9 --print-limit 100 "${@:5}" \
    "$PYTHON" -m pytest -q --require-gpu -p no:cacheprovider --op-examples "$2" test/ops \
    -k "(against_reference and hopper and ($3)) or (pipeline_shapes and ($4))"
}
# Racecheck and initcheck also report what happens inside cuDNN and cuBLASLt, which order their copies by means that racecheck does not
# follow; racecheck crashes when cuBLASLt's kernels are left uninstrumented, and initcheck takes what uninstrumented kernels wrote for
# unwritten. So everything runs under them, and a report that names a kernel of ours fails.
judged() {  # TOOL ARGUMENTS OF sanitize...
  local log
  log=$(sanitize "$@" --show-backtrace no 2>&1)
  echo "$log"
  judge <<<"$log"
}
judge() {
  local log
  log=$(cat)
  if grep -qE "at .*frt(::|_)" <<<"$log"; then echo "errors in our kernels"; return 1; fi
  if ! grep -qE "^[0-9]+ passed" <<<"$log"; then echo "the tests did not pass"; return 1; fi
  echo "tests passed, no error in our kernels"
}
# The denoise loop alone, two layers and two steps: its blocks wait for one another, so every instruction of a test would count.
denoise_loop() {
  nvcc -std=c++17 -lineinfo -gencode=arch=compute_90a,code=sm_90a -Icsrc bench/kernels/denoise_phases.cu -o build/denoise_phases &&
    compute-sanitizer --tool "$1" --error-exitcode 9 --print-limit 5 build/denoise_phases check
}
export -f denoise_loop sanitize judged judge
export FEW_SHAPES="attention and (70 or 314 or 610) or gemm and 10"  # each kernel once: these tools are slow

for step in "${STEPS[@]}"; do
  case $step in
    build) run build 240 bash -c build || break ;;
    ops) run ops 150 bash -c 'pytest_gpu test/ops -k "hopper or gpu or library"' ;;
    oracle) run oracle 240 bash -c 'pytest_gpu test/models/test_pi05_gpu.py test/models/test_pi05_gpu_calibration.py test/models/test_pi05_denoise_loop.py test/models/test_pi05_denoise_joined.py' ;;
    portable) run portable 120 bash -c 'pytest_gpu test/models/test_pi05_gpu_portable.py' ;;
    faults) run faults 200 bash -c 'pytest_gpu test/faults/test_gpu_faults.py' ;;
    soak) run soak 120 bash -c 'pytest_gpu test/models/test_pi05_gpu_soak.py --soak-replays 3000' ;;
    soak-long) run soak-long 900 bash -c 'pytest_gpu --timeout 880 test/models/test_pi05_gpu_soak.py --soak-size full --soak-replays 30000' ;;
    start)
      run start-write 120 "$PYTHON" tools/start_figure.py --write "$SCRATCH/start"
      run start-first 60 "$PYTHON" tools/start_figure.py "$SCRATCH/start" --precision fp8 --out "$OUT/start_h200.json"
      run start-again 60 "$PYTHON" tools/start_figure.py "$SCRATCH/start" --precision fp8 --out "$OUT/start_h200.json"
      run start-bf16 60 "$PYTHON" tools/start_figure.py "$SCRATCH/start" --precision bf16 --out "$OUT/start_h200.json" ;;
    closed-loop) run closed-loop 250 "$PYTHON" tools/eval_gpu.py --jobs "$(nproc)" --out "$OUT/tabletop_eval_h200.json" ;;
    sanitizer)
      run memcheck 200 bash -c 'sanitize memcheck 8 "norm or gemm or attention or rope or patchify or embed or pool or amax or count" "gemm or attention"'
      run loop_memcheck 60 bash -c 'denoise_loop memcheck'
      run loop_synccheck 60 bash -c 'denoise_loop synccheck'
      run racecheck 100 bash -c 'judged racecheck 4 "norm or attention or gemm" "$FEW_SHAPES" --kernel-name-exclude kns=cudnn'
      run initcheck 100 bash -c 'judged initcheck 3 "norm or gemm or attention or rope or resize or patchify or amax" "$FEW_SHAPES"'
      run synccheck 60 bash -c 'sanitize synccheck 3 "norm or attention or gemm" "$FEW_SHAPES" --kernel-name kns=3frt' ;;
    policy) run policy 200 bash -c 'pytest_gpu test/models/test_pi05_gpu_policy.py' ;;
    bench) run bench 200 bash -c '"$PYTHON" -m flashrt_ros.cli bench --random full --json --out "$OUT/pi05_h200.json" >"$OUT/rows.json" &&
      "$PYTHON" tools/perf_tables.py --file "$OUT/pi05_h200.json"' ;;
    sweep) run sweep 400 bash -c '"$PYTHON" -m flashrt_ros.cli bench --random full --sweep --out "$OUT/pi05_h200.json"' ;;
    *) echo "no step '$step'" >&2; exit 2 ;;
  esac
done
for row in "${ROWS[@]}"; do
  name=${row%% *}
  case $row in *ok*) ;; *) echo "---- $name"; tail -n "${TAIL:-40}" "$OUT/$name.log" ;; esac
done
[ -f "$OUT/bench.log" ] && cat "$OUT/bench.log"
echo
printf '%s\n' "${ROWS[@]}"
! printf '%s\n' "${ROWS[@]}" | grep -qE 'FAILED|OVER'
