//! The ready client configuration that the server leaves in its data folder.

use clearml_support::secret::Secret;
use serde_json::json;

use crate::addresses::Addresses;
use crate::http::tls::Trust;

/// Text of `clearml.conf` for a server at these addresses.
pub(crate) fn render(addresses: &Addresses, access_key: &str, secret_key: &Secret) -> String {
    let verify = match &addresses.trust {
        None => String::new(),
        // A JSON string is a HOCON string, whatever the path holds.
        Some(Trust::Itself(path)) => {
            format!("verify_certificate: {}\n    ", json!(path.to_string_lossy()))
        }
        Some(Trust::Authority) => "# If clients do not know the authority that signed the certificate:\n    \
             # verify_certificate: \"/path/of/authority.pem\"\n    "
            .to_owned(),
    };
    let Addresses { api, files, web, .. } = addresses;
    // Without a web page, clients still need some address here.
    let web = web.as_ref().unwrap_or(api);
    format!(
        "# Written by `clearml-agent server` at every start; changes here are overwritten.\n\
         # Use it with any ClearML client: CLEARML_CONFIG_FILE=<this file>\n\
         api {{\n    \
             web_server: \"{web}\"\n    \
             api_server: \"{api}\"\n    \
             files_server: \"{files}\"\n    \
             {verify}\
             credentials {{\n        \
                 \"access_key\" = \"{access_key}\"\n        \
                 \"secret_key\" = \"{}\"\n    \
             }}\n\
         }}\n\
         # The SDK reports from a thread, not from a process that it forks while it looks at the repository: with\n\
         # SDK 2.1 on a busy machine, that fork can hold up `Task.init` for five minutes.\n\
         sdk {{ development {{ report_use_subprocess: false }} }}\n",
        secret_key.expose()
    )
}
