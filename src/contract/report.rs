//! The report of all mistakes in contract files, each with its position and its remedy.

use std::fmt;

/// One mistake in a contract file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file's path, or `embedded:<name>`.
    pub file: String,
    /// The line, counted from 1; `None` when the mistake concerns the whole file.
    pub line: Option<usize>,
    /// The dotted key path; empty when the mistake concerns the whole file.
    pub key: String,
    /// The problem.
    pub problem: String,
    /// The remedy for a mistake: what to write instead.
    pub remedy: String,
}

// Writes a mistake as `file:line: key: problem; remedy`, like compilers, so that editors can jump to the line.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.problem)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// All mistakes of all files, in the order of files and lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContractReport {
    /// The mistakes.
    pub diagnostics: Vec<Diagnostic>,
}

impl ContractReport {
    /// Whether no mistake was reported.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// Adds a mistake.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Adds a mistake that concerns a whole file.
    pub fn push_file(&mut self, file: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.push(Diagnostic {
            file: file.to_owned(),
            line: None,
            key: String::new(),
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }

    /// Sorts the mistakes by line within each file. Files keep the order in which they were first mentioned.
    pub fn sort(&mut self) {
        let mut files: Vec<String> = Vec::new();
        for diagnostic in &self.diagnostics {
            if !files.contains(&diagnostic.file) {
                files.push(diagnostic.file.clone());
            }
        }
        self.diagnostics.sort_by_key(|d| (files.iter().position(|file| *file == d.file), d.line));
        self.diagnostics.dedup();
    }

    /// Converts the report to a result.
    ///
    /// # Errors
    /// Returns the report itself, unless it is empty.
    pub fn into_result(mut self) -> Result<(), Self> {
        if self.is_empty() {
            return Ok(());
        }
        self.sort();
        Err(self)
    }
}

impl fmt::Display for ContractReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.diagnostics {
            writeln!(f, "{diagnostic}")?;
        }
        let count = self.diagnostics.len();
        write!(f, "{count} {}", if count == 1 { "mistake" } else { "mistakes" })
    }
}

impl std::error::Error for ContractReport {}

/// A summary of contract files without mistakes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// One entry for each contract.
    pub contracts: Vec<ContractSummary>,
}

/// Numbers that describe one contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractSummary {
    /// The contract's name.
    pub name: String,
    /// The contract's namespace.
    pub namespace: String,
    /// The file, or `embedded:<name>`.
    pub source: String,
    /// Number of families of rooms.
    pub rooms: usize,
    /// Number of events that clients may send.
    pub client_events: usize,
    /// Number of events that backends may publish.
    pub server_events: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in &self.contracts {
            writeln!(
                f,
                "{}: {} in namespace {}: {} rooms, {} client events, {} server events",
                c.source, c.name, c.namespace, c.rooms, c.client_events, c.server_events
            )?;
        }
        let count = self.contracts.len();
        write!(f, "{count} {}, no mistakes", if count == 1 { "contract" } else { "contracts" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistake_reads_like_a_compilers() {
        let diagnostic = Diagnostic {
            file: "a.toml".into(),
            line: Some(7),
            key: "rooms.job.nam".into(),
            problem: "unknown key".into(),
            remedy: "did you mean `name`?".into(),
        };
        assert_eq!(diagnostic.to_string(), "a.toml:7: rooms.job.nam: unknown key; did you mean `name`?");
    }

    #[test]
    fn report_is_in_the_order_of_files_and_lines() {
        let at = |file: &str, line| Diagnostic {
            file: file.into(),
            line: Some(line),
            key: String::new(),
            problem: String::new(),
            remedy: String::new(),
        };
        let report = ContractReport { diagnostics: vec![at("b", 9), at("a", 3), at("b", 2), at("a", 1)] };
        let lines: Vec<_> =
            report.into_result().unwrap_err().diagnostics.iter().map(|d| (d.file.clone(), d.line.unwrap())).collect();
        assert_eq!(lines, [("b".into(), 2), ("b".into(), 9), ("a".into(), 1), ("a".into(), 3)]);
    }
}
