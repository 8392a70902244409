//! The report of all findings, as text and as JSON.

use std::fmt::{self, Write as _};

use serde::Serialize;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The check found no problem.
    Ok,
    /// The deployment works, but not for all clients, or not permanently.
    Warning,
    /// Clients notice the problem.
    Problem,
    /// The doctor could not make the check.
    Unknown,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's stable name.
    pub check: &'static str,
    /// The severity.
    pub level: Level,
    /// The result of the check, in words.
    pub found: String,
    /// The remedy, if there is a problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// A finding without a problem.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), remedy: None }
    }

    /// A finding that affects only some clients, or only later.
    pub fn warning(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// A finding that clients notice.
    pub fn problem(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, level: Level::Problem, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// A finding that says that the doctor could not make the check.
    pub fn unknown(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, level: Level::Unknown, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// All findings.
#[derive(Debug, Clone, Serialize)]
pub struct DoctorReport {
    /// The URL that was checked.
    pub target: String,
    /// The findings, in the order of the documentation.
    pub findings: Vec<Finding>,
}

impl DoctorReport {
    /// Whether no finding is a problem that clients notice.
    pub fn is_good(&self) -> bool {
        self.count(Level::Problem) == 0
    }

    /// The report as JSON, for programs.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "ok": self.is_good(), "target": self.target, "findings": self.findings })
    }

    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }
}

impl fmt::Display for DoctorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.target)?;
        for finding in &self.findings {
            let mark = match finding.level {
                Level::Ok => "ok",
                Level::Warning => "warning",
                Level::Problem => "PROBLEM",
                Level::Unknown => "?",
            };
            writeln!(f, "{mark:>9}  {}: {}", finding.check, printable(&finding.found))?;
            if let Some(remedy) = &finding.remedy {
                writeln!(f, "{:>9}  -> {}", "", printable(remedy))?;
            }
        }
        let [problems, warnings] = [Level::Problem, Level::Warning].map(|level| self.count(level));
        writeln!(f, "{problems} problems, {warnings} warnings, {} things looked at", self.findings.len())
    }
}

/// Escapes control characters: the text comes from an unknown server, and is shown on a terminal.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            _ = write!(shown, "{}", letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_no_failure_and_problems_are() {
        let mut report = DoctorReport { target: "http://h/".into(), findings: vec![Finding::warning("a", "b", "c")] };
        assert!(report.is_good());
        report.findings.push(Finding::problem("cors", "\u{1b}[31m", "e"));
        assert!(!report.is_good());
        let text = report.to_string();
        assert!(text.contains("PROBLEM  cors: \\u{1b}[31m\n"), "{text}");
        assert!(text.ends_with("1 problems, 1 warnings, 2 things looked at\n"), "{text}");
        assert_eq!(report.json()["findings"][1]["level"], "problem");
    }
}
