//! Documents that tests write. `docs/faults.md`: its table is made by the tests that try the faults, one row each.

use crate::root;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};
use std::io::{Error, Result};

/// In `docs/data-plane.md`, what stands between the table of the controller's tests and that of a cluster.
pub const IN_A_CLUSTER: &str = "\n## In a cluster\n";

/// What came of one kind of fault.
#[derive(Debug, Default)]
pub struct Row {
    /// What was done, such as `oidc-assoc killed right before and after every write`.
    pub fault: String,
    /// How it ended well.
    pub converged: usize,
    /// How it gave up, and told the true reason.
    pub told: usize,
    /// Whatever else happened.
    pub wrong: Vec<String>,
}

impl Row {
    /// Nothing tried yet.
    pub fn new(fault: impl Display) -> Self {
        Self { fault: fault.to_string(), ..Self::default() }
    }

    /// Counts one try; `Err` says what went wrong.
    pub fn converges(&mut self, outcome: std::result::Result<(), String>) {
        match outcome {
            Ok(()) => self.converged += 1,
            Err(wrong) => self.wrong.push(wrong),
        }
    }

    /// Counts one try that must give up.
    pub fn tells(&mut self, outcome: std::result::Result<(), String>) {
        match outcome {
            Ok(()) => self.told += 1,
            Err(wrong) => self.wrong.push(wrong),
        }
    }

    /// Writes the row when `SNAPSHOTS=overwrite`, else compares it with the one that is there.
    ///
    /// # Errors
    /// Something else happened than should, or the document says otherwise.
    pub fn keep(&self) -> Result<()> {
        self.sound()?;
        let path = root().join("docs/faults.md");
        let text = std::fs::read_to_string(&path)?;
        if text.lines().any(|line| line == self.to_string()) {
            return Ok(());
        }
        if std::env::var("SNAPSHOTS").as_deref() != Ok("overwrite") {
            return Err(Error::other(format!("docs/faults.md lacks: {self}\nmake it so with SNAPSHOTS=overwrite")));
        }
        std::fs::write(path, with(&text, self))
    }

    /// Nothing but what should has happened, and something has.
    ///
    /// # Errors
    /// It tells what else did.
    pub fn sound(&self) -> Result<()> {
        match &self.wrong[..] {
            [] if self.converged + self.told > 0 => Ok(()),
            [] => Err(Error::other(format!("{}: nothing was tried", self.fault))),
            wrong => Err(Error::other(format!("{}: {} wrong\n{}", self.fault, wrong.len(), wrong.join("\n")))),
        }
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fault, converged, told, wrong) = (&self.fault, self.converged, self.told, self.wrong.len());
        write!(f, "| {fault} | {} | {converged} | {told} | {wrong} |", converged + told + wrong)
    }
}

/// The document with this row in its place: rows are in alphabetical order, below the line of dashes.
fn with(text: &str, row: &Row) -> String {
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| fault |") && !line.starts_with("| -");
    let name = |line: &str| line.split(" | ").next().unwrap_or_default().to_owned();
    let mut rows: BTreeMap<String, String> =
        text.lines().filter(is_row).map(|line| (name(line), line.to_owned())).collect();
    let line = row.to_string();
    rows.insert(name(&line), line);
    let mut written = String::new();
    for line in text.lines().filter(|line| !is_row(line)) {
        let _infallible = writeln!(written, "{line}");
        if line.starts_with("| -") {
            for row in rows.values() {
                let _infallible = writeln!(written, "{row}");
            }
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_put_in_its_place_and_replaced_there() {
        let text = "# T\n\n| fault | tried |\n| --- | --- |\n| a | 1 | 1 | 0 | 0 |\n| c | 1 | 1 | 0 | 0 |\n\nend\n";
        let once = with(text, &Row { converged: 2, told: 1, ..Row::new("b") });
        assert_eq!(once, text.replace("| c |", "| b | 3 | 2 | 1 | 0 |\n| c |"));
        let twice = with(&once, &Row { converged: 3, ..Row::new("b") });
        assert_eq!(twice, text.replace("| c |", "| b | 3 | 3 | 0 | 0 |\n| c |"));
    }

    #[test]
    fn what_went_wrong_is_told_and_so_is_that_nothing_was_tried() {
        let mut row = Row::new("x");
        assert!(row.sound().is_err());
        row.converges(Ok(()));
        assert!(row.sound().is_ok());
        row.tells(Err("lost".into()));
        assert!(row.sound().is_err_and(|error| error.to_string().contains("lost")));
        assert_eq!(row.to_string(), "| x | 2 | 1 | 0 | 1 |");
    }
}
