# Starts the agent for one task inside of a Slurm job, on one node or on all of them.
fail() { printf 'clearml: %s\n' "$2" >&2; exit "$1"; }
trap '' USR1 USR2
clearml_nodes=${SLURM_JOB_NUM_NODES:-1}
# The batch script is in no step. Slurm 26.05 gives it a number all the same, -5.
case ${SLURM_STEP_ID:-} in
  *[!0-9]* | 429496????) clearml_step= ;;
  *) clearml_step=${SLURM_STEP_ID:-} ;;
esac
if [ "${1:-}" != inside ] && [ -z "$clearml_step" ]; then
  if [ "$clearml_nodes" -gt 1 ] || [ "${CLEARML_SLURM_STEP:-0}" = 1 ]; then
    command -v srun >/dev/null 2>&1 || fail 126 'this job has several nodes, but there is no srun here to reach them'
    [ -x "${CLEARML_SLURM_JOB_DIR:-/nowhere}/run" ] || fail 126 'a job on several nodes needs ${CLEARML_PRE_SETUP} in the template'
    if [ "$clearml_nodes" -gt 1 ] && [ -z "${CLEARML_SLURM_SHARED:-}" ]; then
      fail 126 'a job on several nodes needs a folder that all of them see; set agent.slurm.shared_dir'
    fi
    exec srun --overlap --ntasks="$clearml_nodes" --ntasks-per-node=1 --kill-on-bad-exit=1 \
      ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} --export=ALL "$CLEARML_SLURM_JOB_DIR/run"
  fi
fi
clearml_agent=
for clearml_candidate in "${CLEARML_SLURM_AGENT:-}" "$(command -v clearml-agent 2>/dev/null || :)" \
  "${CLEARML_AGENT__AGENT__VENVS_DIR:-/nowhere}/clearml-agent" "${CLEARML_SLURM_JOB_DIR:-/nowhere}/clearml-agent" \
  /opt/clearml/clearml-agent; do
  if [ -z "$clearml_agent" ] && [ -n "$clearml_candidate" ] && [ -x "$clearml_candidate" ]; then
    clearml_agent=$clearml_candidate
  fi
done
if [ -z "$clearml_agent" ] && [ -n "${CLEARML_SLURM_AGENT_URL:-}" ]; then
  clearml_agent=${CLEARML_SLURM_JOB_DIR:-/tmp}/clearml-agent
  if command -v curl >/dev/null 2>&1; then curl -fsSL -o "$clearml_agent" "$CLEARML_SLURM_AGENT_URL"
  elif command -v wget >/dev/null 2>&1; then wget -q -O "$clearml_agent" "$CLEARML_SLURM_AGENT_URL"
  else python3 -c "import sys, urllib.request as u; u.urlretrieve(sys.argv[1], sys.argv[2])" \
    "$CLEARML_SLURM_AGENT_URL" "$clearml_agent"; fi && chmod 700 "$clearml_agent" ||
    fail 127 'the agent could not be downloaded from CLEARML_SLURM_AGENT_URL'
fi
[ -n "$clearml_agent" ] || fail 127 "there is no clearml-agent on $(uname -n); set agent.slurm.agent_binary to its path there"
clearml_rank=0
[ -z "$clearml_step" ] || clearml_rank=${SLURM_PROCID:-0}
if [ "$clearml_nodes" -gt 1 ]; then
  : "${NODE_RANK:=${SLURM_NODEID:-0}}" "${RANK:=$clearml_rank}"
  if [ -z "${MASTER_ADDR:-}" ]; then
    MASTER_ADDR=$(scontrol show hostnames "${SLURM_JOB_NODELIST:-}" 2>/dev/null | head -n 1)
    if [ -z "$MASTER_ADDR" ]; then
      MASTER_ADDR=${SLURM_JOB_NODELIST:-localhost}
      clearml_numbers=${MASTER_ADDR#*\[}
      [ "$clearml_numbers" = "$MASTER_ADDR" ] || MASTER_ADDR=${MASTER_ADDR%%\[*}${clearml_numbers%%[],-]*}
      MASTER_ADDR=${MASTER_ADDR%%,*}
    fi
  fi
  if [ -z "${MASTER_PORT:-}" ]; then
    MASTER_PORT=29500
    [ "${CLEARML_SLURM_EXCLUSIVE:-0}" = 1 ] || MASTER_PORT=$((20000 + ${SLURM_JOB_ID:-0} % 20000))
  fi
  export NODE_RANK RANK MASTER_ADDR MASTER_PORT
fi
CLEARML_WORKER_ID=$CLEARML_SLURM_WORKER
[ "$clearml_rank" -eq 0 ] || CLEARML_WORKER_ID=$CLEARML_SLURM_WORKER:$clearml_rank
CLEARML_AGENT_PROPAGATE_EXITCODE=1
export CLEARML_WORKER_ID CLEARML_AGENT_PROPAGATE_EXITCODE
if [ "${1:-}" = inside ] && [ -f "${CLEARML_SLURM_JOB_DIR:-/nowhere}/setup.sh" ]; then
  . "$CLEARML_SLURM_JOB_DIR/setup.sh"
fi
set -- execute --full-monitoring
if [ "$clearml_rank" -eq 0 ] && [ "${CLEARML_SLURM_REQUIRE_QUEUE:-1}" = 1 ]; then
  set -- "$@" --require-queue
fi
exec "$clearml_agent" "$@" --id "$CLEARML_SLURM_TASK"
