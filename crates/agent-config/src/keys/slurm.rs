//! Keys of the Slurm glue, `clearml-agent-slurm`.

use super::keys;

keys! { SLURM:
    "agent.slurm.user_map", Map, Unset,
        "Linux users of jobs, by ClearML user id; default stands for everybody else. Empty: the glue's own user.";
    "agent.slurm.allowed_users", List, Unset, "The only Linux users, or groups as @group, that the map may name; empty: all.";
    "agent.slurm.vault_user_map", Choice(&["any", "admin", "off"]), Internal(r#""any""#),
        "Whose vaults may bring a user_map of their own: any, admin (not those that people have made for themselves), off.";
    "agent.slurm.allowed_images", List, Unset, "Images that tasks may name, * stands for any text; empty: all.";
    "agent.slurm.singleton", Flag, Internal("false"), "Let Slurm start no second job of a task (--dependency=singleton).";
    "agent.slurm.account_check", Choice(&["auto", "off"]), Internal(r#""auto""#), "Ask Slurm's accounting how jobs ended; off: only the controller.";
    "agent.slurm.min_uid", Integer(1), Internal("1000"), "Linux users with smaller numbers are never used for jobs.";
    "agent.slurm.queues", Entries, Unset,
        "Queues with their templates, instead of the options: {queue, template, mode, max_jobs, max_pending, work_dir, extra_sbatch_args}.";
    "agent.slurm.parking_queue", Text, Internal(r#""slurm_scheduler""#), "Queue in which tasks wait for their jobs; none: no queue.";
    "agent.slurm.poll_interval", Number(1.0), Internal("15"), "Seconds between looks at the jobs.";
    "agent.slurm.queue_poll_interval", Number(0.1), Internal("5"), "Seconds between looks at the queues.";
    "agent.slurm.submission_spacing", Number(0.0), Internal("0.05"), "Least seconds between two calls of sbatch.";
    "agent.slurm.command_timeout", Number(5.0), Internal("60"), "Most seconds that a command of Slurm may take.";
    "agent.slurm.max_jobs", Integer(0), Internal("0"), "Most jobs, waiting and running, over all queues; 0: no limit.";
    "agent.slurm.max_pending", Integer(0), Internal("0"), "Most waiting jobs over all queues; 0: no limit.";
    "agent.slurm.on_preemption", Choice(&["stop", "fail", "requeue"]), Internal(r#""stop""#),
        "What becomes of a task whose job is cancelled by preemption.";
    "agent.slurm.work_dir", Path, Unset, "Working folder of jobs, which must exist on compute nodes.";
    "agent.slurm.state_dir", Path, Computed("~/.clearml/slurm/<worker id>"), "Folder of the journal.";
    "agent.slurm.shared_dir", Path, Unset, "Folder that the glue and all compute nodes see; needed for jobs on several nodes.";
    "agent.slurm.agent_binary", Path, Unset, "Where clearml-agent is on compute nodes; otherwise it is looked for in PATH.";
    "agent.slurm.credentials", Choice(&["none", "inline", "file", "token"]),
        Computed("token where the server lets the glue log in as the owner of a task, none otherwise"),
        "How jobs log in: none (nodes have a configuration), inline (keys in the script), file (keys in a private file of shared_dir), token (one of the task's owner).";
    "agent.slurm.report_properties", Flag, Internal("true"), "Write job, cluster, partition and user into the task's properties.";
    "agent.slurm.log_tail_lines", Integer(0), Internal("100"), "Lines of a job's own output to show when its agent has said nothing.";
    "agent.slurm.lost_job_grace", Number(0.0), Internal("300"), "Seconds for which Slurm may forget a job before its task fails.";
    "agent.slurm.end_grace", Number(0.0), Internal("60"), "Seconds for the agent's last report after the end of its job.";
    "agent.slurm.abort_grace", Number(0.0), Internal("120"), "Seconds for an agent to stop its task before the job is cancelled.";
    "agent.slurm.pending_deadline", Number(0.0), Internal("0"), "Seconds after which a job that can hardly begin fails its task; 0: never.";
    "agent.slurm.fail_on_pending_reasons", List, Unset, "Reasons for waiting, in Slurm's words, that fail the task.";
    "agent.slurm.default_separator", Text, Internal(r#"":""#), "What separates a path from its default in templates.";
    "agent.slurm.bin_dir", Path, Unset, "Folder with sbatch, squeue and the others.";
    "agent.slurm.pass_env", List, Unset, "Variables that the commands of Slurm get, and with them jobs.";
    "agent.slurm.allow_user_options", List, Unset, "Options of sbatch about users and environment that values of tasks may go into.";
    "agent.slurm.allowed_sbatch_options", List, Unset, "Options of sbatch that a value with |words may consist of.";
    "agent.slurm.max_requeue", Integer(0), Internal("3"), "How often preemption may send a task back to its queue.";
}
