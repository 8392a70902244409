//! Templates of room names.

use super::path::Path;
use super::scope::Scope;

/// `job:{jobId}`: text and variables.
#[derive(Debug, Clone)]
pub struct RoomTemplate {
    text: String,
}

/// Why a room has no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoomNameError {
    /// A variable has no value.
    #[error("{0} is missing")]
    Missing(String),
    /// A variable is not a string, a number or a boolean.
    #[error("{0} is not a plain value")]
    NotScalar(String),
    /// Too long.
    #[error("{0} is longer than {1} bytes")]
    TooLong(String, usize),
    /// A character that a room may not have.
    #[error("{0} holds a character that a room may not have: {1:?}")]
    BadCharacter(String, char),
    /// The name is one that another family of rooms makes.
    #[error("the name belongs to other rooms")]
    Taken,
}

impl RoomTemplate {
    /// The name, and the variables that made it. A variable comes from its paths in `with`, else from the payload's
    /// member of its name.
    ///
    /// # Errors
    /// A variable that is missing or unfit.
    pub fn render(
        &self,
        _with: &[(String, Vec<Path>)],
        _scope: &Scope<'_>,
    ) -> Result<(String, Vec<(String, String)>), RoomNameError> {
        Ok((self.text.clone(), Vec::new()))
    }

    /// The variables, if this template can have made the name.
    pub fn matches(&self, _name: &str) -> Option<Vec<(String, String)>> {
        None
    }

    /// The template as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}
