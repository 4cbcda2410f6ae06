//! Variables of this machine in `-e NAME=VALUE`.

/// Replaces `$NAME` and `${NAME}` in the values of `-e` and `--env`, in every spelling. A variable that is not
/// set stays as it is written, as shells' `envsubst` look-alikes of Python do.
#[must_use]
pub fn expand_variables(words: &[String], environment: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let mut is_value = false;
    words
        .iter()
        .map(|word| {
            let expands = std::mem::take(&mut is_value);
            if expands {
                return expand(word, environment);
            }
            if word == "-e" || word == "--env" {
                is_value = true;
                return word.clone();
            }
            let value = ["--env=", "-e=", "-e"]
                .into_iter()
                .find_map(|prefix| Some((prefix, word.strip_prefix(prefix)?)));
            match value {
                Some((prefix, value)) if !word.starts_with("--env-") => {
                    format!("{prefix}{}", expand(value, environment))
                }
                _ => word.clone(),
            }
        })
        .collect()
}

fn expand(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> String {
    let Some((name, mut rest)) = text.split_once('=') else {
        return text.to_owned();
    };
    let mut expanded = format!("{name}=");
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let (written, variable) = reference(&rest[at..]);
        match variable.and_then(environment) {
            Some(value) => expanded.push_str(&value),
            None => expanded.push_str(written),
        }
        rest = &rest[at + written.len()..];
    }
    expanded + rest
}

/// The reference that the text begins with, as it is written, and the name in it.
fn reference(text: &str) -> (&str, Option<&str>) {
    let letters = |text: &str| {
        text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(text.len())
    };
    if let Some(inner) = text.strip_prefix("${") {
        let length = letters(inner);
        if length > 0 && inner[length..].starts_with('}') {
            return (&text[..length + 3], Some(&inner[..length]));
        }
        return (&text[..2], None);
    }
    let length = letters(&text[1..]);
    (&text[..=length], (length > 0).then(|| &text[1..=length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_spelling_and_each_reference() {
        let environment = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "LONG_1" => Some("$A".to_owned()),
            _ => None,
        };
        let line = [
            "-e",
            "X=$A-${A}$",
            "--env=Y=$LONG_1",
            "-eZ=${A",
            "-e=W=${}$9$B",
            "--env-file=$A",
            "-v",
            "$A:/x",
            "-e",
            "A",
        ];
        let words: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        let expected = [
            "-e",
            "X=1-1$",
            "--env=Y=$A",
            "-eZ=${A",
            "-e=W=${}$9$B",
            "--env-file=$A",
            "-v",
            "$A:/x",
            "-e",
            "A",
        ];
        assert_eq!(expand_variables(&words, &environment), expected);
    }
}
