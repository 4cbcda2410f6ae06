//! Which part of a shell command one stands in: its name, an argument, the name of a variable.
//!
//! This decides where a value would be run rather than read. It knows the programs that take a part of their
//! arguments for a program of its own; a value there is refused, because quoting for the outer shell does not
//! help against the inner one.

/// Words after which another command may begin.
const KEEP: [&str; 9] = ["if", "then", "elif", "else", "while", "until", "do", "!", "{"];

/// Programs and builtins that start the command made of their arguments.
const PREFIXES: [&str; 22] = [
    "exec", "command", "builtin", "time", "env", "nohup", "nice", "ionice", "setsid", "stdbuf", "timeout",
    "sudo", "doas", "runuser", "chroot", "unshare", "srun", "mpirun", "mpiexec", "numactl", "taskset",
    "strace",
];

/// Commands that read their arguments as code, names or places to write to.
const EVALUATORS: [&str; 17] = [
    "eval",
    "let",
    "declare",
    "typeset",
    "unset",
    "read",
    "mapfile",
    "readarray",
    "getopts",
    "trap",
    "source",
    ".",
    "alias",
    "wait",
    "enable",
    "complete",
    "coproc",
];

/// Programs that do so wherever they stand in a command.
const INNER: [&str; 14] = [
    "eval", "ssh", "rsh", "su", "xargs", "parallel", "awk", "gawk", "mawk", "sed", "at", "batch", "sbatch",
    "salloc",
];

/// Languages whose programs may be given as an argument.
const INTERPRETERS: [&str; 12] = [
    "sh", "bash", "dash", "ash", "ksh", "zsh", "busybox", "perl", "ruby", "node", "php", "lua",
];

/// Shell variables whose values are run or decide what is run.
const DANGEROUS: [&str; 6] = ["BASH_ENV", "ENV", "PS4", "PROMPT_COMMAND", "PATH", "LD_PRELOAD"];

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// What is assigned to a variable, or the file of a redirection: exactly one word.
    One,
    /// An argument.
    Argument,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// The name of a command.
    #[default]
    Command,
    Arguments,
    /// The variable of a loop, or the name of a function.
    Name,
    /// The words of an array.
    Elements,
}

/// The command that is being read.
#[derive(Debug, Default)]
pub(super) struct Command {
    expect: Expect,
    words: Vec<String>,
    word: Option<String>,
    target: bool,
    /// That redirection is read from.
    input: bool,
    /// Placeholders decide what the command reads from its input.
    fed: bool,
    /// Inside of `[[ … ]]`, where `&&` and `<` have another meaning.
    pub(super) in_test: bool,
    /// Open `case … esac`, in which `)` ends a pattern.
    pub(super) cases: usize,
    /// Placeholders among the arguments of this command.
    holes: Vec<usize>,
    /// Those of this pipeline so far.
    piped: Vec<usize>,
    /// All of them: what a block prints may depend on any of the lines in it.
    all: Vec<usize>,
    after_pipe: bool,
    /// This line names a program that may read code from its input.
    interprets: bool,
}

/// Placeholders that stand where a value would be run, and why.
pub(super) type Refused = Vec<(usize, String)>;

impl Command {
    pub(super) fn of_array() -> Self {
        Self {
            expect: Expect::Elements,
            ..Self::default()
        }
    }

    pub(super) fn is_array(&self) -> bool {
        self.expect == Expect::Elements
    }

    pub(super) fn in_word(&self) -> bool {
        self.word.is_some()
    }

    pub(super) fn word(&self) -> &str {
        self.word.as_deref().unwrap_or_default()
    }

    /// Whether the next word would be the name of a command.
    pub(super) fn at_command(&self) -> bool {
        self.expect == Expect::Command && self.word.is_none() && !self.target
    }

    /// Whether `((` begins an expression here: as a command, or after `for`.
    pub(super) fn at_expression(&self) -> bool {
        self.at_command() || (self.expect == Expect::Name && self.word.is_none())
    }

    /// A quote begins here.
    pub(super) fn push_quote(&mut self) {
        self.word.get_or_insert_default().push(QUOTE);
    }

    pub(super) fn push(&mut self, text: &str) {
        self.word.get_or_insert_default().push_str(text);
    }

    /// The next word is the target of a redirection. Digits before it are the number of a file.
    pub(super) fn redirect(&mut self, input: bool) -> Refused {
        if self
            .word
            .as_deref()
            .is_some_and(|word| word.bytes().all(|b| b.is_ascii_digit()))
        {
            self.word = None;
        }
        let refused = self.end_word();
        self.target = true;
        self.input = input;
        refused
    }

    pub(super) fn end_word(&mut self) -> Refused {
        let Some(word) = self.word.take() else {
            return Vec::new();
        };
        if std::mem::take(&mut self.target) {
            return Vec::new();
        }
        let is_quoted = word.contains(QUOTE);
        let word: String = word.chars().filter(|c| !matches!(*c, QUOTE | '\\')).collect();
        self.interprets |= names_interpreter(&word) || is_inner(&word);
        match self.expect {
            Expect::Elements => {}
            Expect::Name if self.words.first().is_some_and(|first| first == "function") => {
                self.words.clear();
                self.expect = Expect::Command;
            }
            Expect::Name => self.expect = Expect::Arguments,
            Expect::Arguments => {
                if word == "]]" {
                    self.in_test = false;
                }
                if word == "in" && self.words.first().is_some_and(|first| first == "case") {
                    self.words.clear();
                    self.expect = Expect::Command;
                } else {
                    self.words.push(word);
                }
            }
            Expect::Command if !is_quoted && (KEEP.contains(&word.as_str()) || assigned(&word).is_some()) => {
            }
            Expect::Command => return self.begin(word),
        }
        Vec::new()
    }

    fn begin(&mut self, word: String) -> Refused {
        match word.as_str() {
            "case" => self.cases += 1,
            "esac" => self.cases = self.cases.saturating_sub(1),
            "[[" => self.in_test = true,
            _ => {}
        }
        self.expect = match word.as_str() {
            "for" | "select" | "function" => Expect::Name,
            _ => Expect::Arguments,
        };
        let is_variable = word.starts_with('$');
        self.interprets |= is_variable;
        let runs =
            names_interpreter(&word) || is_inner(&word) || is_variable || PREFIXES.contains(&base(&word));
        let reads = std::mem::take(&mut self.after_pipe) && runs;
        self.words.push(word);
        if !reads {
            return Vec::new();
        }
        let why = "it would become input of a program that runs what it reads; put it into a variable first";
        self.piped.drain(..).map(|hole| (hole, why.to_owned())).collect()
    }

    /// A placeholder begins here, in quotes or not.
    ///
    /// # Errors
    ///
    /// Why no value may stand here.
    pub(super) fn hole(&mut self, index: usize) -> Result<Role, String> {
        let word = self.word().to_owned();
        self.all.push(index);
        if self.target {
            if self.input {
                self.fed = true;
                self.holes.push(index);
            }
            self.push("\0");
            return Ok(Role::One);
        }
        let role = match self.expect {
            Expect::Elements => Role::Argument,
            Expect::Name => return Err("a value can't be the name of a variable or function".to_owned()),
            Expect::Command => match assigned(&word) {
                Some(name) if DANGEROUS.contains(&name) => {
                    return Err(format!(
                        "a value can't be given to {name}, which decides what is run"
                    ));
                }
                Some(_) => {
                    self.push("\0");
                    return Ok(Role::One);
                }
                None => return Err(COMMAND.to_owned()),
            },
            Expect::Arguments
                if word.trim_matches(QUOTE).is_empty()
                    && !self.words.is_empty()
                    && self.is_next_command() =>
            {
                return Err(COMMAND.to_owned());
            }
            Expect::Arguments => self.argument(&word)?,
        };
        self.holes.push(index);
        self.piped.push(index);
        self.push("\0");
        Ok(role)
    }

    /// A placeholder stands in something nested in this command, such as `$(…)`.
    pub(super) fn contains(&mut self, index: usize) -> Result<Role, String> {
        self.all.push(index);
        self.fed |= self.word().contains("<(") || (self.target && self.input);
        self.holes.push(index);
        self.piped.push(index);
        let word = self.word();
        if self.target {
            return Ok(Role::Argument);
        }
        let begins_word = matches!(word.trim_start_matches(QUOTE), "$(" | "<(");
        match (self.expect, assigned(word)) {
            (Expect::Command, Some(name)) if DANGEROUS.contains(&name) => Err(format!(
                "a value can't be a part of {name}, which decides what is run"
            )),
            (Expect::Command, None) if word != "(" => Err(COMMAND.to_owned()),
            (Expect::Arguments, _) if begins_word && self.is_next_command() => Err(COMMAND.to_owned()),
            (Expect::Name, _) if word != "(" => Err("a value can't be a part of a name".to_owned()),
            _ => Ok(Role::Argument),
        }
    }

    /// A placeholder stands in a here-document of this command.
    pub(super) fn document(&mut self, index: usize) {
        self.all.push(index);
        if self.after_pipe {
            self.piped.push(index);
        }
    }

    fn argument(&self, word: &str) -> Result<Role, String> {
        let first = self.words.first().map_or("", String::as_str);
        if matches!(first, "export" | "readonly" | "local") {
            return match assigned(word.trim_start_matches(QUOTE)) {
                Some(name) if !DANGEROUS.contains(&name) => Ok(Role::One),
                _ => Err(format!(
                    "after {first}, write the name of a variable and `=` before the value"
                )),
            };
        }
        if first == "[[" && self.words.last().is_some_and(|last| last == "=~") {
            return Err("a value can't be a regular expression".to_owned());
        }
        Ok(Role::Argument)
    }

    /// Whether a program that starts others has had options only, so that the next word is what it starts.
    fn is_next_command(&self) -> bool {
        let mut starts = false;
        let mut after_option = false;
        for word in &self.words {
            if PREFIXES.contains(&base(word)) {
                starts = true;
                after_option = false;
            } else if !starts {
                return false;
            } else if word.starts_with('-') {
                // `-p gpu`: the next word may belong to it.
                after_option = word.len() == 2;
            } else if after_option || assigned(word).is_some() || word.parse::<f64>().is_ok() {
                after_option = false;
            } else {
                return false;
            }
        }
        starts
    }

    /// The command ends here. `pipe`: what it prints goes to the next one.
    pub(super) fn end(&mut self, pipe: bool) -> Refused {
        let mut refused = self.end_word();
        if !pipe && self.after_pipe && self.words.is_empty() && self.expect == Expect::Command {
            // The pipeline goes on in the next line.
            return refused;
        }
        if pipe
            && self
                .words
                .first()
                .is_some_and(|first| CLOSERS.contains(&first.as_str()) || first.starts_with('('))
        {
            self.piped.clone_from(&self.all);
        }
        if let Some(why) = self.dangerous() {
            refused.extend(self.holes.iter().map(|hole| (*hole, why.clone())));
        }
        self.holes.clear();
        self.words.clear();
        self.target = false;
        self.fed = false;
        self.in_test = false;
        if self.expect != Expect::Elements {
            self.expect = Expect::Command;
        }
        self.after_pipe = pipe;
        if !pipe {
            self.piped.clear();
        }
        refused
    }

    /// Whether this line may hand a here-document to a program that runs it; asked once a line.
    pub(super) fn takes_interpreter(&mut self) -> bool {
        std::mem::take(&mut self.interprets)
    }

    fn dangerous(&self) -> Option<String> {
        let command = self
            .words
            .iter()
            .map(|word| base(word))
            .find(|word| !matches!(*word, "command" | "builtin"))?;
        let has = |wanted: &[&str]| self.words.iter().any(|word| wanted.contains(&word.as_str()));
        if EVALUATORS.contains(&command) {
            return Some(format!(
                "{command} takes its arguments for code or names; a value can't be one"
            ));
        }
        if let Some(inner) = self.words.iter().find(|word| is_inner(word)) {
            return Some(format!(
                "{} runs what it is given; write the value to a variable or file instead",
                base(inner)
            ));
        }
        if command == "[[" && has(&["-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-v", "-R", "=~"]) {
            return Some("[[ computes what stands beside this operator; use [ … ] instead".to_owned());
        }
        if matches!(command, "[" | "test" | "printf") && has(&["-v", "-R"]) {
            return Some(format!("{command} -v takes a name, which a value can't be"));
        }
        let interpreter = self
            .words
            .iter()
            .position(|word| names_interpreter(word))
            .or_else(|| {
                let first = self
                    .words
                    .iter()
                    .position(|word| !PREFIXES.contains(&base(word)))?;
                self.words[first].starts_with('$').then_some(first)
            })?;
        if self.fed {
            return Some(format!("{} runs what it reads", self.words[interpreter]));
        }
        let is_code = |word: &String| {
            word.starts_with("--eval")
                || (word.starts_with('-') && !word.starts_with("--") && word.contains(['c', 'e', 'E']))
        };
        self.words[interpreter + 1..].iter().any(is_code).then(|| {
            format!(
                "{} would run it as code; export a variable with the value and use that inside",
                self.words[interpreter]
            )
        })
    }
}

/// Stands in a word where a quote begins: what is quoted is no keyword and no assignment.
const QUOTE: char = '\x01';

/// Words that end a block of commands.
const CLOSERS: [&str; 4] = ["}", "fi", "done", "esac"];

const COMMAND: &str =
    "a value can't be a command; write the name of the command, and an option as --name=value";

/// The name in `name=…` or `name+=…`.
fn assigned(word: &str) -> Option<&str> {
    let (name, _) = word.split_once('=')?;
    let name = name.strip_suffix('+').unwrap_or(name);
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_name.then_some(name)
}

fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

fn is_inner(word: &str) -> bool {
    INNER.contains(&base(word))
}

/// A shell or another language.
fn names_interpreter(word: &str) -> bool {
    let name = base(word);
    INTERPRETERS.contains(&name) || name.starts_with("python")
}
