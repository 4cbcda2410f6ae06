if [ "${SLURM_JOB_NUM_NODES:-1}" -gt 1 ] && [ -n "$CLEARML_SLURM_SHARED" ]; then
  CLEARML_SLURM_JOB_DIR=$CLEARML_SLURM_SHARED/${USER:-$(id -un)}
  (umask 077 && mkdir -p "$CLEARML_SLURM_JOB_DIR")
  # Everybody may write beside it: whoever owns this one could exchange what the other nodes run.
  if [ -L "$CLEARML_SLURM_JOB_DIR" ] || [ ! -O "$CLEARML_SLURM_JOB_DIR" ]; then
    printf 'clearml: %s is not a folder of your own; have it removed\n' "$CLEARML_SLURM_JOB_DIR" >&2
    exit 73
  fi
else
  CLEARML_SLURM_JOB_DIR=${SLURM_TMPDIR:-${TMPDIR:-/tmp}}
fi
CLEARML_SLURM_JOB_DIR=$CLEARML_SLURM_JOB_DIR/clearml-$CLEARML_SLURM_TASK-${SLURM_JOB_ID:-0}-${SLURM_RESTART_COUNT:-0}
mkdir -m 700 "$CLEARML_SLURM_JOB_DIR" || { printf 'clearml: %s can not be created\n' "$CLEARML_SLURM_JOB_DIR" >&2; exit 73; }
export CLEARML_SLURM_JOB_DIR CLEARML_SLURM_TASK CLEARML_SLURM_QUEUE CLEARML_SLURM_WORKER CLEARML_SLURM_SHARED \
  CLEARML_SLURM_AGENT CLEARML_SLURM_EXCLUSIVE CLEARML_SLURM_REQUIRE_QUEUE
: "${CLEARML_AGENT__AGENT__VENVS_DIR:=$CLEARML_SLURM_JOB_DIR}"
CLEARML_AGENT_PROPAGATE_EXITCODE=1
SLURM_EXPORT_ENV=ALL
export CLEARML_AGENT__AGENT__VENVS_DIR CLEARML_AGENT_PROPAGATE_EXITCODE SLURM_EXPORT_ENV
__clearml_end() {
  __clearml_last=$?
  trap - EXIT
  rm -rf -- "$CLEARML_SLURM_JOB_DIR"
  [ "$__clearml_last" -ne 0 ] || __clearml_last=${__clearml_rc:-0}
  exit "$__clearml_last"
}
trap __clearml_end EXIT
