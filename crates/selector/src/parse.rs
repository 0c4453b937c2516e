//! Recursive descent over the text of a selector.
//!
//! ```text
//! or      := and { "||" and }
//! and     := unary { "&&" unary }
//! unary   := { "!" } primary
//! primary := "(" or ")" | "all(" ")" | "global(" ")" | "has(" label ")" | label operator operand
//! ```

use crate::Expr;

/// A text that is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("selector, character {}: expected {expected}, found {found}", .position + 1)]
pub struct ParseError {
    position: usize,
    expected: &'static str,
    found: String,
}

impl ParseError {
    /// How many characters precede the mistake.
    pub fn position(&self) -> usize {
        self.position
    }

    /// What the grammar allows there.
    pub fn expected(&self) -> &'static str {
        self.expected
    }
}

pub(crate) fn parse(text: &str) -> Result<Expr, ParseError> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
    };
    parser.blanks();
    if parser.rest().is_empty() {
        return Ok(Expr::All);
    }
    let Nested { expr, .. } = parser.or()?;
    if parser.rest().is_empty() {
        Ok(expr)
    } else {
        Err(parser.error("'&&', '||' or the end"))
    }
}

/// Whether a text can be a label name in a selector.
pub(crate) fn is_label(text: &str) -> bool {
    (1..=MAX_LABEL).contains(&text.len()) && text.bytes().all(is_label_byte)
}

/// An expression, and how many `&&` and `||` lie within each other in it: its parentheses when printed.
struct Nested {
    expr: Expr,
    depth: usize,
}

/// Invariant: `at` is on a character boundary; every production starts and ends past blanks.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn or(&mut self) -> Result<Nested, ParseError> {
        let mut operands = vec![self.and()?];
        while self.token("||") {
            operands.push(self.and()?);
        }
        self.joined(operands, Expr::Or)
    }

    fn and(&mut self) -> Result<Nested, ParseError> {
        let mut operands = vec![self.unary()?];
        while self.token("&&") {
            operands.push(self.unary()?);
        }
        self.joined(operands, Expr::And)
    }

    fn unary(&mut self) -> Result<Nested, ParseError> {
        let mut negated = false;
        while self.token("!") {
            negated = !negated;
        }
        let Nested { expr, depth } = self.primary()?;
        let expr = match expr {
            operand if !negated => operand,
            // `!(!x)` is `x`, so that the printed form has at most one `!` before an operand.
            Expr::Not(inner) => *inner,
            operand => Expr::Not(Box::new(operand)),
        };
        Ok(Nested { expr, depth })
    }

    /// One operand as it is; several joined, one level deeper than the deepest.
    fn joined(
        &self,
        mut operands: Vec<Nested>,
        join: fn(Vec<Expr>) -> Expr,
    ) -> Result<Nested, ParseError> {
        if operands.len() == 1 {
            return Ok(operands.remove(0));
        }
        let depth = 1 + operands
            .iter()
            .map(|nested| nested.depth)
            .max()
            .unwrap_or(0);
        if depth > MAX_DEPTH {
            return Err(self.error("at most 128 conditions within each other"));
        }
        let operands = operands.into_iter().map(|nested| nested.expr).collect();
        Ok(Nested {
            expr: join(operands),
            depth,
        })
    }

    fn primary(&mut self) -> Result<Nested, ParseError> {
        if !self.token("(") {
            return self.condition().map(|expr| Nested { expr, depth: 0 });
        }
        if self.depth == MAX_DEPTH {
            return Err(self.error("at most 128 nested parentheses"));
        }
        self.depth += 1;
        let inner = self.or()?;
        self.depth -= 1;
        self.close()?;
        Ok(inner)
    }

    fn condition(&mut self) -> Result<Expr, ParseError> {
        if self.token("all(") {
            self.close()?;
            return Ok(Expr::All);
        }
        if self.token("global(") {
            self.close()?;
            return Ok(Expr::Global);
        }
        if self.token("has(") {
            let label = self.label("a label name")?;
            self.close()?;
            return Ok(Expr::Has(label));
        }
        let label = self.label("a label name, 'has(', 'all()', 'global()', '!' or '('")?;
        self.comparison(label)
    }

    fn comparison(&mut self, label: String) -> Result<Expr, ParseError> {
        if self.token("==") {
            return Ok(Expr::Equal(label, self.string()?));
        }
        if self.token("!=") {
            return Ok(Expr::NotEqual(label, self.string()?));
        }
        if self.words("in", "") {
            return Ok(Expr::In(label, self.set()?));
        }
        if self.words("not", "in") {
            return Ok(Expr::NotIn(label, self.set()?));
        }
        if self.words("contains", "") {
            return Ok(Expr::Contains(label, self.string()?));
        }
        if self.words("starts", "with") {
            return Ok(Expr::StartsWith(label, self.string()?));
        }
        if self.words("ends", "with") {
            return Ok(Expr::EndsWith(label, self.string()?));
        }
        Err(self.error("an operator: ==, !=, in, not in, contains, starts with or ends with"))
    }

    fn label(&mut self, expected: &'static str) -> Result<String, ParseError> {
        let length = self
            .rest()
            .bytes()
            .take_while(|b| is_label_byte(*b))
            .count();
        if length == 0 {
            return Err(self.error(expected));
        }
        if length > MAX_LABEL {
            return Err(self.error("a label name of at most 512 characters"));
        }
        let label = self.rest()[..length].to_owned();
        self.advance(length);
        Ok(label)
    }

    fn string(&mut self) -> Result<String, ParseError> {
        let rest = self.rest();
        let Some(quote @ ('"' | '\'')) = rest.chars().next() else {
            return Err(self.error("a quoted string"));
        };
        let Some(length) = rest[1..].find(quote) else {
            return Err(self.error("a string with a closing quote"));
        };
        let value = rest[1..=length].to_owned();
        self.advance(length + 2);
        Ok(value)
    }

    fn set(&mut self) -> Result<Vec<String>, ParseError> {
        if !self.token("{") {
            return Err(self.error("'{'"));
        }
        let mut values = Vec::new();
        while !self.token("}") {
            values.push(self.string()?);
            if !self.token(",") && !self.rest().starts_with('}') {
                return Err(self.error("',' or '}'"));
            }
        }
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }

    fn close(&mut self) -> Result<(), ParseError> {
        if self.token(")") {
            Ok(())
        } else {
            Err(self.error("')'"))
        }
    }

    /// Consumes an operator of one or two words; the last must end at a word boundary.
    fn words(&mut self, first: &str, second: &str) -> bool {
        let Some(after) = self.rest().strip_prefix(first) else {
            return false;
        };
        let after = if second.is_empty() {
            after
        } else {
            match after.trim_start_matches(BLANKS).strip_prefix(second) {
                Some(after) => after,
                None => return false,
            }
        };
        if after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            return false;
        }
        self.advance(self.rest().len() - after.len());
        true
    }

    fn token(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.advance(token.len());
        }
        found
    }

    fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        self.blanks();
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(BLANKS).len();
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, expected: &'static str) -> ParseError {
        let mut found: String = self.rest().chars().take(SHOWN).collect();
        if found.is_empty() {
            found = "the end".to_owned();
        } else {
            found = format!("{found:?}");
        }
        ParseError {
            position: self.text[..self.at].chars().count(),
            expected,
            found,
        }
    }
}

fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-')
}

const BLANKS: [char; 2] = [' ', '\t'];
const MAX_LABEL: usize = 512;
/// Bounds the stack, in parentheses read as in those printed: what parses also parses when printed.
const MAX_DEPTH: usize = 128;
const SHOWN: usize = 16;

#[cfg(test)]
mod tests {
    use crate::Selector;

    fn canonical(text: &str) -> String {
        Selector::parse(text).unwrap().to_string()
    }

    #[test]
    fn canonical_forms() {
        for (text, expected) in [
            ("", "all()"),
            (" \t", "all()"),
            ("all( )", "all()"),
            ("has( a/b.c-d_e )", "has(a/b.c-d_e)"),
            ("a=='b'", r#"a == "b""#),
            (r#"a == 'say "x"'"#, r#"a == 'say "x"'"#),
            ("a in{'c','b','c',}", r#"a in {"b", "c"}"#),
            ("a in {}", "a in {}"),
            ("a notin {'b'}", r#"a not in {"b"}"#),
            ("a startswith 'b'", r#"a starts with "b""#),
            ("a ends \t with 'b'", r#"a ends with "b""#),
            ("!!has(a)", "has(a)"),
            ("!(!has(a))", "has(a)"),
            ("! ! ! has(a)", "!has(a)"),
            (
                "a == 'x' || has(b) && has(c)",
                r#"(a == "x" || (has(b) && has(c)))"#,
            ),
            ("in in {'in'}", r#"in in {"in"}"#),
            ("all == 'x'", r#"all == "x""#),
            ("has == 'x'", r#"has == "x""#),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn errors_say_where_and_what() {
        for (text, position, part) in [
            ("a", 1, "an operator"),
            ("a = 'b'", 2, "an operator"),
            ("a == b", 5, "a quoted string"),
            ("a == 'b", 5, "closing quote"),
            ("a inx {'b'}", 2, "an operator"),
            ("a in 'b'", 5, "'{'"),
            ("a in {'b' 'c'}", 10, "',' or '}'"),
            ("a in {,}", 6, "a quoted string"),
            ("has (a)", 4, "an operator"),
            ("has()", 4, "a label name"),
            ("(has(a)", 7, "')'"),
            ("has(a) has(b)", 7, "'&&', '||' or the end"),
            ("has(a)\n", 6, "the end"),
            ("é == 'b'", 0, "a label name"),
            ("a == 'é' &&", 11, "a label name"),
        ] {
            let error = Selector::parse(text).unwrap_err();
            assert_eq!(error.position(), position, "{text}: {error}");
            assert!(error.expected().contains(part), "{text}: {error}");
        }
        assert_eq!(
            Selector::parse("a == b").unwrap_err().to_string(),
            "selector, character 6: expected a quoted string, found \"b\""
        );
    }

    /// Conditions nested `depth` times, without a parenthesis that printing would drop.
    fn nested(depth: usize) -> String {
        let mut text = "has(a)".to_owned();
        for _ in 0..depth {
            text = format!("({text} && has(b) || has(c))");
        }
        text
    }

    #[test]
    fn what_parses_also_parses_when_printed() {
        for depth in 0..140 {
            for text in [nested(depth), format!("{} || has(d)", nested(depth))] {
                if let Ok(selector) = Selector::parse(&text) {
                    assert_eq!(
                        Selector::parse(&selector.to_string()),
                        Ok(selector),
                        "{depth}"
                    );
                }
            }
        }
        assert!(Selector::parse(&nested(64)).is_ok());
        assert!(Selector::parse(&nested(65)).is_err());
    }

    #[test]
    fn depth_and_label_length_are_bounded() {
        let nested = |depth: usize| format!("{}has(a){}", "(".repeat(depth), ")".repeat(depth));
        assert!(Selector::parse(&nested(128)).is_ok());
        assert!(Selector::parse(&nested(129)).is_err());
        assert!(Selector::parse(&"(".repeat(1_000_000)).is_err());
        assert!(Selector::parse(&"!".repeat(1_000_000)).is_err());
        assert!(Selector::parse(&format!("has({})", "a".repeat(512))).is_ok());
        assert!(Selector::parse(&format!("has({})", "a".repeat(513))).is_err());
    }
}
