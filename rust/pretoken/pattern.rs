//! The split patterns of tokenizer.json, parsed into a small tree.
//!
//! The grammar is what published tokenizers use: alternation, groups, `(?i:…)`, classes, greedy quantifiers, and lookahead
//! over one class. Everything else is refused by name, so that no construct is ever read with another meaning. Sets of
//! characters come from `regex-syntax`, which agrees with Hugging Face on every code point.

use regex_syntax::hir::{Class as HirClass, ClassUnicode, ClassUnicodeRange, HirKind};

/// A parsed pattern.
#[derive(Debug, Clone)]
pub enum Node {
    Class(ClassUnicode),
    Concat(Vec<Node>),
    Alternation(Vec<Node>),
    Repeat {
        body: Box<Node>,
        min: u32,
        max: Option<u32>,
    },
    /// The next character must lie in `set`; `end` tells whether the end of the input will do as well.
    Lookahead {
        set: ClassUnicode,
        end: bool,
    },
}

impl Node {
    /// Appends every set of characters that the tree mentions.
    pub fn collect_sets(&self, out: &mut Vec<ClassUnicode>) {
        match self {
            Node::Class(set) | Node::Lookahead { set, .. } => {
                if !out.contains(set) {
                    out.push(set.clone());
                }
            }
            Node::Concat(nodes) | Node::Alternation(nodes) => nodes.iter().for_each(|n| n.collect_sets(out)),
            Node::Repeat { body, .. } => body.collect_sets(out),
        }
    }

    /// Whether the node can match without reading a character.
    pub fn nullable(&self) -> bool {
        match self {
            Node::Class(_) => false,
            Node::Lookahead { .. } => true,
            Node::Concat(nodes) => nodes.iter().all(Node::nullable),
            Node::Alternation(nodes) => nodes.iter().any(Node::nullable),
            Node::Repeat { body, min, .. } => *min == 0 || body.nullable(),
        }
    }
}

/// Parses a pattern; the error names what is not supported.
pub fn parse(pattern: &str) -> Result<Node, String> {
    let mut parser = Parser { rest: pattern, ignore_case: false };
    let node = parser.alternation()?;
    if !parser.rest.is_empty() {
        return Err(format!("unbalanced ')' in pattern {pattern:?}"));
    }
    if node.nullable() {
        return Err(format!("pattern {pattern:?}, which can match the empty string"));
    }
    Ok(node)
}

struct Parser<'a> {
    rest: &'a str,
    ignore_case: bool,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn eat(&mut self, literal: &str) -> bool {
        match self.rest.strip_prefix(literal) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn alternation(&mut self) -> Result<Node, String> {
        let outer = self.ignore_case;
        let mut branches = vec![self.concat()?];
        while self.eat("|") {
            branches.push(self.concat()?);
        }
        self.ignore_case = outer;
        Ok(if branches.len() == 1 { branches.remove(0) } else { Node::Alternation(branches) })
    }

    fn concat(&mut self) -> Result<Node, String> {
        let mut parts = Vec::new();
        while let Some(c) = self.peek() {
            if c == '|' || c == ')' {
                break;
            }
            if self.eat("(?i)") {
                self.ignore_case = true;
                continue;
            }
            let atom = self.atom()?;
            parts.push(self.quantified(atom)?);
        }
        Ok(Node::Concat(parts))
    }

    fn atom(&mut self) -> Result<Node, String> {
        if self.rest.starts_with('(') {
            return self.group();
        }
        let token = self.class_text()?;
        Ok(Node::Class(class_of(token, self.ignore_case)?))
    }

    fn group(&mut self) -> Result<Node, String> {
        for (opening, negated) in [("(?!", true), ("(?=", false)] {
            if self.eat(opening) {
                let token = self.class_text()?;
                if !self.eat(")") {
                    return Err("lookahead over more than one character class".into());
                }
                let mut set = class_of(token, self.ignore_case)?;
                if negated {
                    set.negate();
                }
                return Ok(Node::Lookahead { set, end: negated });
            }
        }
        let outer = self.ignore_case;
        if self.eat("(?i:") {
            self.ignore_case = true;
        } else if !self.eat("(?:") && self.rest.starts_with("(?") {
            let shown: String = self.rest.chars().take(4).collect();
            return Err(format!("group {shown:?} (lookbehind, atomic, named or flagged)"));
        } else {
            self.eat("(");
        }
        let node = self.alternation()?;
        self.ignore_case = outer;
        if self.eat(")") { Ok(node) } else { Err("unbalanced '('".into()) }
    }

    fn quantified(&mut self, atom: Node) -> Result<Node, String> {
        let (min, max) = match self.peek() {
            Some('?') => (0, Some(1)),
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('{') => return self.counted(atom),
            _ => return Ok(atom),
        };
        self.rest = &self.rest[1..];
        self.repeat(atom, min, max)
    }

    fn counted(&mut self, atom: Node) -> Result<Node, String> {
        let close = self.rest.find('}').ok_or("a literal '{'")?;
        let inner = &self.rest[1..close];
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("quantifier {{{inner}}}"));
        let (min, max) = match inner.split_once(',') {
            None => (number(inner)?, Some(number(inner)?)),
            Some((low, "")) => (number(low)?, None),
            Some((low, high)) => (number(low)?, Some(number(high)?)),
        };
        if min > 100 || max.is_some_and(|m| m > 100 || m < min) {
            return Err(format!("quantifier {{{inner}}} (at most 100)"));
        }
        self.rest = &self.rest[close + 1..];
        self.repeat(atom, min, max)
    }

    fn repeat(&mut self, atom: Node, min: u32, max: Option<u32>) -> Result<Node, String> {
        match self.peek() {
            Some('?') => return Err("a lazy quantifier".into()),
            Some('+') => return Err("a possessive quantifier".into()),
            Some('*' | '{') => return Err("a quantifier of a quantifier".into()),
            _ => {}
        }
        if max.is_none() && atom.nullable() {
            return Err("an unbounded repetition of what can match the empty string".into());
        }
        Ok(Node::Repeat { body: Box::new(atom), min, max })
    }

    /// Takes the text of one character, escape or bracketed class off the front.
    fn class_text(&mut self) -> Result<&'a str, String> {
        let length = match self.peek() {
            None | Some('|' | ')') => return Err("an empty group or lookahead".into()),
            Some('[') => bracket_length(self.rest)?,
            Some('\\') => escape_length(self.rest)?,
            Some(c @ ('^' | '$' | '*' | '+' | '?' | '{')) => return Err(format!("a bare {c:?}")),
            Some(c) => c.len_utf8(),
        };
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(token)
    }
}

/// The length of an escape at the front of `text`.
fn escape_length(text: &str) -> Result<usize, String> {
    let mut chars = text.char_indices().skip(1);
    let (at, c) = chars.next().ok_or("a trailing backslash")?;
    match c {
        'p' | 'P' if text[at + 1..].starts_with('{') => {
            text.find('}').map(|close| close + 1).ok_or_else(|| "an unclosed \\p{".into())
        }
        'p' | 'P' => chars.next().map(|(i, c)| i + c.len_utf8()).ok_or_else(|| "an unfinished \\p".into()),
        's' | 'S' | 'd' | 'D' | 'w' | 'W' | 'r' | 'n' | 't' | 'f' | 'v' => Ok(at + 1),
        c if !c.is_alphanumeric() => Ok(at + c.len_utf8()),
        c => Err(format!("escape \\{c} (anchor, backreference or other)")),
    }
}

/// The length of a bracketed class at the front of `text`. Set operations are refused.
fn bracket_length(text: &str) -> Result<usize, String> {
    let mut at = if text.starts_with("[^") { 2 } else { 1 };
    let mut first = true;
    while let Some(c) = text[at..].chars().next() {
        match c {
            ']' if !first => return Ok(at + 1),
            '\\' => at += escape_length(&text[at..])?,
            '[' => return Err("a nested or POSIX character class".into()),
            '&' if text[at..].starts_with("&&") => return Err("a class intersection".into()),
            c => at += c.len_utf8(),
        }
        first = false;
    }
    Err("an unclosed '['".into())
}

/// The set of characters that one class, escape or character stands for.
fn class_of(token: &str, ignore_case: bool) -> Result<ClassUnicode, String> {
    // regex-syntax knows set operations that Hugging Face's engine reads as literal characters.
    if token.starts_with('[') && (token.contains("--") || token.contains("~~")) {
        return Err(format!("class {token:?} with a set operation"));
    }
    // A slash and other punctuation may be escaped in a pattern though regex-syntax knows no such escape.
    let hir = regex_syntax::ParserBuilder::new()
        .case_insensitive(ignore_case)
        .build()
        .parse(token)
        .map_err(|error| format!("class {token:?}: {}", error.to_string().replace('\n', " ")))?;
    match hir.into_kind() {
        HirKind::Class(HirClass::Unicode(set)) => Ok(set),
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0).map_err(|_| format!("class {token:?}"))?;
            let ranges = text.chars().map(|c| ClassUnicodeRange::new(c, c));
            Ok(ClassUnicode::new(ranges))
        }
        _ => Err(format!("class {token:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_by_name() {
        for (pattern, named) in [
            (r"(?<=a)b", "lookbehind"),
            (r"a++", "possessive"),
            (r"a+?", "lazy"),
            (r"(a)\1", "backreference"),
            (r"[a-z&&[^b]]", "intersection"),
            (r"a(?!bc)", "lookahead"),
            (r"\bfoo", "anchor"),
            (r"a*", "empty string"),
            (r"(?>a)b", "atomic"),
        ] {
            let error = parse(pattern).unwrap_err();
            assert!(error.contains(named), "{pattern}: {error}");
        }
    }

    #[test]
    fn case_folding_reaches_the_long_s() {
        let Node::Concat(parts) = parse("(?i:s)").unwrap() else { panic!() };
        let Node::Concat(inner) = &parts[0] else { panic!() };
        let Node::Class(set) = &inner[0] else { panic!() };
        assert!(set.ranges().iter().any(|r| r.start() <= '\u{17f}' && '\u{17f}' <= r.end()));
    }
}
