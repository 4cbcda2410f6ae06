//! Keys of the `agent` section that concern version control.

use super::keys;

keys! { KEYS:
    "agent.git_user", Text, Unset, "User for repositories over HTTPS; needs agent.git_pass.",
        .variables(&["CLEARML_AGENT_GIT_USER", "TRAINS_AGENT_GIT_USER"]);
    "agent.git_pass", Text, Unset, "Password or token for repositories over HTTPS; needs agent.git_user.",
        .variables(&["CLEARML_AGENT_GIT_PASS", "TRAINS_AGENT_GIT_PASS"]).secret();
    "agent.git_host", Text, Unset, "The only host that gets these credentials.",
        .variables(&["CLEARML_AGENT_GIT_HOST", "TRAINS_AGENT_GIT_HOST"]);
    "agent.git_host_match_prefix", Flag, Internal("false"),
        "Compare agent.git_host with the beginning of the URL instead of its host.";
    "agent.git.extra_credentials", Entries, Unset, "More credentials: a list of objects with user, pass and host.",
        .secret();
    "agent.hg_user", Text, Unset, "User for Mercurial repositories over HTTPS.";
    "agent.hg_pass", Text, Unset, "Password for Mercurial repositories over HTTPS.", .secret();
    "agent.hg_host", Text, Unset, "The only host that gets the Mercurial credentials.";
    "agent.hg.extra_credentials", Entries, Unset, "More Mercurial credentials: a list of objects with user, pass and host.",
        .secret();
    "agent.vcs_type", Choice(&["git", "hg"]), Internal(r#""git""#),
        "What keeps repositories whose URL does not begin with hg+.";
    "agent.git_use_ms_entra_token", Flag, Internal("false"),
        "Send agent.git_pass to git servers as a bearer token of Microsoft Entra.",
        .variables(&["CLEARML_AGENT_GIT_USE_MS_ENTRA_TOKEN"]).only_true();
    "agent.git_use_azure_pat", Flag, Internal("false"),
        "Send agent.git_pass to git servers as a personal access token of Azure DevOps.",
        .variables(&["CLEARML_AGENT_GIT_USE_AZURE_PAT"]).only_true();
    "agent.enable_git_ask_pass", Flag, Internal("true"), "Hand credentials to git through GIT_ASKPASS instead of the URL.";
    "agent.force_git_ssh_protocol", Flag, Packaged("false"), "Use SSH for repositories that are named by an HTTPS URL.";
    "agent.force_git_ssh_port", Port, Unset, "Port for SSH.";
    "agent.force_git_ssh_user", Text, Unset, "User for SSH; git when unset.";
    "agent.force_git_ssh_protocol_strict", Flag, Internal("false"),
        "With agent.force_git_ssh_protocol, keep SSH also for host:path addresses whose host has credentials.";
    "agent.translate_ssh", Flag, Packaged("true"), "Use HTTPS for repositories named by an SSH URL when credentials match.";
    "agent.translate_ssl_replacement_scheme", Text, Packaged(r#""https""#), "Scheme of the URLs made by agent.translate_ssh.",
        .variables(&["CLEARML_AGENT_SSH_URL_REPLACEMENT_SCHEME"]);
    "agent.translate_ssh_keep_port", Flag, Internal("false"), "Keep the port of SSH in the URLs made by agent.translate_ssh.";
    "agent.git_fetch_args", List, Packaged(r#"["--all", "--tags", "--recurse-submodules"]"#), "Arguments of git fetch.",
        .lenient("[]");
    "agent.git_clone_args", List, Unset, "More arguments of git clone, such as --filter=blob:none.";
    "agent.git_retries", Integer(0), Internal("2"), "Repetitions of a clone or fetch after a fault of the network.";
    "agent.git_ignore_submodule_errors", Flag, Internal("false"), "Run tasks without the submodules that cannot be fetched.";
    "agent.git_submodules", Choice(&["full", "legacy"]), Internal(r#""full""#),
        "Fetch what the commit needs with the credentials of each host, or, with legacy, what git clone --recursive brings.";
    "agent.git_lfs", Choice(&["auto", "skip", "pull"]), Internal(r#""auto""#),
        "Fetch files from Git LFS: where git-lfs is installed, never, or always, which needs git-lfs.";
    "agent.git_apply_skip_binary", Flag, Internal("false"),
        "Leave out uncommitted changes of binary files whose content the task does not hold.";
    "agent.vcs_cache.enabled", Flag, Packaged("true"), "Keep clones for the next task.";
    "agent.vcs_cache.path", Path, Packaged(r#""~/.clearml/vcs-cache""#), "Folder of the kept clones.";
    "agent.vcs_cache.clone_on_pull_fail", Flag, Internal("false"), "Clone anew when a kept clone cannot be updated.";
    "agent.vcs_cache.always_fetch", Flag, Internal("false"), "Ask the server also for commits that are in a kept clone.";
    "agent.vcs_cache.copy_mode", Choice(&["link", "copy"]), Internal(r#""link""#),
        "Whether working copies share the objects of a kept clone by hard links, or get copies.";
    "agent.vcs_cache.max_entries", Integer(0), Internal("200"), "Most kept clones; 0 for any number.";
    "agent.vcs_cache.max_size_gb", Integer(0), Internal("100"), "Most space of all kept clones together; 0 for any size.";
    "agent.force_git_root_python_path", Flag, Internal("false"),
        "Put the root of the repository instead of the working folder in PYTHONPATH.";
}
