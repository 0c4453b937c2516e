//! The limits that the API puts on selectors in resources.

use crate::{Expr, ParseError, Selector};

/// Longest selector a resource may hold, in characters.
pub const MAX_LENGTH: usize = 1024;

/// Whether a field admits `global()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GlobalUse {
    /// Not at all.
    Forbidden,
    /// As the whole selector, never combined: the namespace selectors of rules.
    Alone,
}

/// Why a resource may not hold a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// It does not parse.
    #[error(transparent)]
    Syntax(#[from] ParseError),
    /// It is too long.
    #[error("selector has {length} characters where at most {MAX_LENGTH} are allowed")]
    TooLong {
        /// Its length in characters.
        length: usize,
    },
    /// It uses `global()` where that has no meaning.
    #[error("selector uses global(), which only the namespaceSelector of a rule's side may")]
    Global,
    /// It combines `global()` with other conditions.
    #[error("selector combines global() with other conditions; it must stand alone")]
    CombinedGlobal,
}

/// Parses a resource's selector and checks it against the API's limits.
///
/// # Errors
/// See [`InvalidSelector`].
pub fn validate(text: &str, global: GlobalUse) -> Result<Selector, InvalidSelector> {
    let length = text.chars().count();
    if length > MAX_LENGTH {
        return Err(InvalidSelector::TooLong { length });
    }
    let selector = Selector::parse(text)?;
    let mut uses_global = false;
    selector
        .0
        .visit(&mut |expr| uses_global |= *expr == Expr::Global);
    match global {
        _ if !uses_global => Ok(selector),
        GlobalUse::Forbidden => Err(InvalidSelector::Global),
        GlobalUse::Alone if selector.0 == Expr::Global => Ok(selector),
        GlobalUse::Alone => Err(InvalidSelector::CombinedGlobal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        use GlobalUse::{Alone, Forbidden};
        assert!(validate("has(a)", Forbidden).is_ok());
        assert!(validate("global()", Alone).is_ok());
        assert_eq!(
            validate("global()", Forbidden),
            Err(InvalidSelector::Global)
        );
        assert_eq!(
            validate("!global()", Alone),
            Err(InvalidSelector::CombinedGlobal)
        );
        assert_eq!(
            validate("has(a) || (has(b) && global())", Alone),
            Err(InvalidSelector::CombinedGlobal)
        );
        assert!(validate(&" ".repeat(1024), Forbidden).is_ok());
        assert_eq!(
            validate(&" ".repeat(1025), Forbidden),
            Err(InvalidSelector::TooLong { length: 1025 })
        );
    }
}
