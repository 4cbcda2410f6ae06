//! Configuration vaults: asking the server for them and laying them into the settings.
//!
//! Only servers beyond the open one have vaults. Whatever goes wrong here is told and stops nothing: the
//! settings of this machine are good without them.

use std::time::Duration;

use clearml_agent_config::{Notice, NoticeLevel, Settings, Vault, WithVaults};
use clearml_api_client::{ApiError, Call, Client, Retry};
use serde::Deserialize;
use serde_json::Value;

/// How long an absent server may hold up the start.
const LIMIT: Duration = Duration::from_secs(30);
/// The variable that switches vaults off.
const DISABLED: &str = "CLEARML_AGENT_DISABLE_VAULT_SUPPORT";
/// The oldest API that has them.
const SINCE: (u32, u32) = (2, 15);

/// The settings with the vaults of the client's user in them, and what is to be said about that.
///
/// The client must have logged in. Nothing is asked of a server that has no vaults.
pub async fn with_vaults(client: &Client, settings: &Settings) -> WithVaults {
    laid_in(client, settings, Settings::with_vaults).await
}

/// The settings with the vaults of one more user laid over those that are there already.
pub async fn and_vaults(client: &Client, settings: &Settings) -> WithVaults {
    laid_in(client, settings, Settings::and_vaults).await
}

async fn laid_in(
    client: &Client,
    settings: &Settings,
    lay: fn(&Settings, &[Vault], &[Vault]) -> WithVaults,
) -> WithVaults {
    let unchanged = |notices| WithVaults {
        settings: settings.clone(),
        notices,
    };
    if settings.variable_flag(DISABLED) == Some(true) {
        return unchanged(vec![notice(
            NoticeLevel::Info,
            "Vault support is disabled".to_owned(),
        )]);
    }
    if !has_vaults(client) {
        return unchanged(Vec::new());
    }
    let configuration = match of_user(client, settings).await {
        Ok(vaults) => vaults,
        Err(e) => {
            return unchanged(vec![notice(
                NoticeLevel::Warning,
                format!("Failed getting vaults: {e}"),
            )]);
        }
    };
    // Few servers have these, and nobody on this machine can do anything about them.
    let monitoring = get(client, "monitoring").await.unwrap_or_default();
    lay(settings, &configuration, &monitoring)
}

fn has_vaults(client: &Client) -> bool {
    let session = client.session();
    session.is_some_and(|session| session.at_least(SINCE.0, SINCE.1) && session.feature_set != "basic")
}

/// The configuration vaults of the client's user, for who has to know what each of them says. None where the
/// server has no vaults, or the settings want none.
///
/// # Errors
///
/// When the server refuses or can't answer.
pub async fn of_user(client: &Client, settings: &Settings) -> Result<Vec<Vault>, ApiError> {
    if settings.variable_flag(DISABLED) == Some(true) || !has_vaults(client) {
        return Ok(Vec::new());
    }
    match get(client, "config").await {
        Err(e) if is_unknown(&e) => Ok(Vec::new()),
        other => other,
    }
}

/// Everything that happens to the settings of a command which runs one task: vaults are laid in, folders
/// and files of the configuration are written.
///
/// # Errors
///
/// When the client can't log in.
pub async fn for_command(client: &Client, settings: &Settings) -> Result<WithVaults, ApiError> {
    client.login().await?;
    let WithVaults {
        settings,
        mut notices,
    } = with_vaults(client, settings).await;
    let prepared = settings.prepare();
    notices.extend(prepared.notices);
    Ok(WithVaults {
        settings: prepared.settings,
        notices,
    })
}

/// What to print of notices: those about details only where `debug` is on.
pub fn shown(notices: &[Notice], debug: bool) -> impl Iterator<Item = &str> {
    notices
        .iter()
        .filter(move |notice| debug || notice.level > NoticeLevel::Debug)
        .map(|notice| notice.text.as_str())
}

fn notice(level: NoticeLevel, text: String) -> Notice {
    Notice { level, text }
}

fn is_unknown(error: &ApiError) -> bool {
    error.is_missing_endpoint() || error.code().is_some_and(|(code, _)| code == 404)
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    vaults: Vec<Value>,
}

async fn get(client: &Client, kind: &str) -> Result<Vec<Vault>, ApiError> {
    let call = Call::new("users.get_vaults")
        .query("enabled", "true")
        // Twice, or servers would take it for one text instead of a list.
        .query("types", kind)
        .query("types", kind)
        .retry(Retry::Bounded(LIMIT));
    let reply: Reply = client.call(call).await?;
    Ok(reply.vaults.iter().filter_map(read).collect())
}

/// A vault without content is none; of the rest only the content matters.
fn read(vault: &Value) -> Option<Vault> {
    let text = |name: &str| {
        vault
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let user = match vault.get("user") {
        Some(Value::String(id)) => Some(id.clone()),
        Some(Value::Object(user)) => user.get("id").and_then(Value::as_str).map(str::to_owned),
        _ => None,
    };
    let data = match vault.get("data")? {
        Value::String(text) => text.clone(),
        object @ Value::Object(_) => object.to_string(),
        _ => return None,
    };
    Some(Vault {
        id: text("id"),
        scope: text("scope"),
        user,
        description: text("description"),
        data,
    })
}
