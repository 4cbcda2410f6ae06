//! `CLEARML_AGENT_SERVICES_DOCKER_RESTART`: containers of services that the engine starts again when they end.
//!
//! `POLICY[;FIELD[=VALUE]]`: for all services, or for those whose task has the field, or has it with this value.

use clearml_container::request::Restart;
use serde_json::Value;

/// What the variable says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    restart: Restart,
    field: Option<(String, Option<String>)>,
}

impl Wish {
    /// The error is for the user.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (policy, selector) = text.split_once(';').unwrap_or((text, ""));
        let restart = Restart::parse(policy.trim()).ok_or_else(|| {
            format!(
                "CLEARML_AGENT_SERVICES_DOCKER_RESTART has the policy {policy:?}; it may be no, always, unless-stopped, \
                 on-failure, or on-failure:N"
            )
        })?;
        let selector = selector.trim();
        let field = (!selector.is_empty()).then(|| match selector.split_once('=') {
            Some((field, value)) => (field.trim().to_owned(), Some(value.trim().to_owned())),
            None => (selector.to_owned(), None),
        });
        Ok(Self { restart, field })
    }

    /// How the container of this task is restarted; `None` where it is not.
    pub(super) fn of(&self, task: &Value) -> Option<Restart> {
        let wanted = match &self.field {
            None => true,
            Some((path, value)) => {
                let found = path.split('.').try_fold(task, |value, part| value.get(part));
                let found = found.filter(|found| !found.is_null())?;
                value.as_deref().is_none_or(|value| equals(found, value))
            }
        };
        (wanted && self.restart != Restart::Never).then_some(self.restart)
    }
}

fn equals(found: &Value, wanted: &str) -> bool {
    match found {
        Value::Bool(found) => match wanted.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => *found,
            "false" | "0" | "no" | "off" => !*found,
            _ => false,
        },
        Value::Number(found) => wanted.parse::<f64>().is_ok_and(|wanted| {
            found
                .as_f64()
                .is_some_and(|found| found.total_cmp(&wanted).is_eq())
        }),
        Value::String(found) => found == wanted,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policies_and_the_tasks_that_they_are_for() {
        let task = json!({"type": "service", "runtime": {"keep": true, "level": 3}, "parent": null});
        let of = |text: &str| Wish::parse(text).unwrap().of(&task);
        assert_eq!(of("always"), Some(Restart::Always));
        assert_eq!(of("no"), None);
        assert_eq!(of(" on-failure:3 ;type"), Some(Restart::OnFailure(3)));
        assert_eq!(of("on-failure;type=service"), Some(Restart::OnFailure(0)));
        assert_eq!(
            of("unless-stopped;runtime.keep=True"),
            Some(Restart::UnlessStopped)
        );
        assert_eq!(of("always;runtime.level=3.0"), Some(Restart::Always));
        for other in [
            "type=training",
            "runtime.keep=false",
            "runtime.level=4",
            "parent",
            "no.such",
            "runtime=x",
        ] {
            assert_eq!(of(&format!("always;{other}")), None, "{other}");
        }
        for wrong in ["", "sometimes", "on-failure:x", "always:3", "--privileged"] {
            assert!(Wish::parse(wrong).is_err(), "{wrong}");
        }
    }
}
