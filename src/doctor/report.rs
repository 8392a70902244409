//! What was found, for people and for programs.

use std::fmt::{self, Write as _};

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but not for everybody or not for ever.
    Warning,
    /// Clients notice.
    Problem,
    /// It could not be seen from here.
    Unknown,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its stable name.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was seen.
    pub found: String,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), remedy: None }
    }

    /// Works, but not for everybody or not for ever.
    pub fn warning(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// Clients notice.
    pub fn problem(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, level: Level::Problem, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// It could not be seen from here.
    pub fn unknown(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, level: Level::Unknown, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Everything that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where.
    pub target: String,
    /// In the order of the documentation.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether clients would notice nothing.
    pub fn is_good(&self) -> bool {
        self.count(Level::Problem) == 0
    }

    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "ok": self.is_good(), "target": self.target, "findings": self.findings })
    }

    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }
}

impl fmt::Display for Report {
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

/// What a stranger's server said may hold anything; a terminal is shown text alone.
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
        let mut report = Report { target: "http://h/".into(), findings: vec![Finding::warning("a", "b", "c")] };
        assert!(report.is_good());
        report.findings.push(Finding::problem("cors", "\u{1b}[31m", "e"));
        assert!(!report.is_good());
        let text = report.to_string();
        assert!(text.contains("PROBLEM  cors: \\u{1b}[31m\n"), "{text}");
        assert!(text.ends_with("1 problems, 1 warnings, 2 things looked at\n"), "{text}");
        assert_eq!(report.json()["findings"][1]["level"], "problem");
    }
}
