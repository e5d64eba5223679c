//! The next student token after every s_1..s_i of a text, in the regime "general": which rows say something about it, and what
//! a teacher prefix beyond s_1..s_i would go on with if the text were cut there.

use super::Plan;
use super::extension::Prefix;
use super::frontier::Grower;
use crate::decide::context::{INSIDE, OUTSIDE, TRACK, Verdict};
use crate::error::Result;
use crate::trie::Trie;

/// No student token follows: what is read does not start with s_1..s_i.
const OUT: i64 = -1;
/// It is not known which: a character has not ended.
const UNKNOWN: i64 = -2;

/// What comes after s_1..s_i in the text of a teacher prefix cut behind it.
#[derive(Debug, Clone, Copy)]
pub struct Closing {
    /// The next student token; −1 where that text does not start with s_1..s_i, −2 where that is not known.
    pub label: i64,
    /// No text of the prefix has another one.
    pub certain: bool,
    /// The student reads that text as it is.
    pub reads: bool,
}

/// Which rows say something about the student token after s_1..s_depth.
#[derive(Debug, Default)]
pub struct Beyond {
    /// Nodes that end where s_1..s_depth does: their whole rows. (A first token that is nothing but the dummy prefix ends
    /// where no token does, so that one node may stand for both.)
    pub exact_node: Vec<i64>,
    pub exact_depth: Vec<i64>,
    /// Every text of the node starts with s_1..s_depth.
    pub exact_in: Vec<bool>,
    /// Whether it is in was not found out.
    pub exact_given_up: Vec<bool>,
    /// Tokens `first..last` of the order, after `node`, that reach beyond the end of s_1..s_depth.
    pub node: Vec<i64>,
    pub first: Vec<i64>,
    pub last: Vec<i64>,
    pub depth: Vec<i64>,
    /// Of each position (n + 1 a text): the student reads the text cut there as s_1..s_i.
    pub ends: Vec<bool>,
}

impl Plan {
    /// What the plan's rows are for, where whole distributions are wanted. Fails (plan) in other regimes.
    pub fn beyond(&self) -> Result<Beyond> {
        let general = self.general()?;
        let trie = &general.shared.teacher.trie;
        let mut beyond = Beyond::default();
        for (text, line) in general.lines.iter().enumerate() {
            let nodes = self.node_ptr[text] as usize..self.node_ptr[text + 1] as usize;
            general.shared.with(|work| {
                let grower = Grower::new(&general.shared, work, line);
                let closing = |&context: &u32| grower.work.contexts.closing(context) == Some(INSIDE);
                beyond.ends.extend(grower.contexts.iter().map(closing));
                for node in nodes.clone() {
                    let end = general.ends[node];
                    let state = grower.work.states.number(&general.shared.teacher, self.states[node].clone());
                    for depth in line.ending_at(end) {
                        // Nothing that comes after a prefix that is out is about s_1..s_depth.
                        let verdict = grower.work.decide(&general.shared, state, grower.contexts[depth]);
                        if depth == 0 || verdict != Verdict::Out {
                            beyond.exact_node.push(node as i64);
                            beyond.exact_depth.push(depth as i64);
                            // All texts start with no token.
                            beyond.exact_in.push(depth == 0 || verdict == Verdict::In);
                            beyond.exact_given_up.push(depth > 0 && verdict == Verdict::GivenUp);
                        }
                    }
                }
            });
            for node in nodes {
                let end = general.ends[node];
                let mut at = Trie::ROOT;
                for (step, &byte) in line.bytes[end..].iter().enumerate() {
                    let Some(next) = trie.child(at, byte) else { break };
                    at = next;
                    let here = trie.node(at);
                    if here.exact == here.last {
                        continue;
                    }
                    // Several, where a first student token is nothing but the dummy prefix.
                    for depth in line.ending_at(end + step + 1) {
                        beyond.node.push(node as i64);
                        beyond.first.push(i64::from(here.exact));
                        beyond.last.push(i64::from(here.last));
                        beyond.depth.push(depth as i64);
                    }
                }
            }
        }
        Ok(beyond)
    }

    /// What follows s_1..s_depth after each prefix (node, token); what is certain, as far as the student's readings tell, or
    /// (`exact`) both tokenizers. Fails as `extend` does.
    pub fn closings(
        &self,
        nodes: &[i64],
        tokens: &[i64],
        depths: &[i64],
        exact: bool,
        threads: usize,
    ) -> Result<Vec<Closing>> {
        let prefixes = self.prefixes(nodes, tokens)?;
        self.check_depths(&prefixes, depths)?;
        self.of_each(&prefixes, threads, |grower, i| self.closing_one(grower, &prefixes[i], depths[i] as usize, exact))
    }

    fn closing_one(&self, grower: &mut Grower<'_>, prefix: &Prefix, depth: usize, exact: bool) -> Result<Closing> {
        let (line, shared) = (grower.line, grower.shared);
        let state = self.number(grower.work, prefix)?;
        if prefix.reached(line) < depth {
            return Ok(Closing { label: OUT, certain: prefix.len() > line.ends[depth], reads: true });
        }
        let mut context = grower.work.contexts.track(grower.contexts[depth]);
        if depth == 0 && line.start && shared.student.tables.canonical.tokenizer.dummy.is_some() {
            context = grower.work.contexts.feed(&shared.student, context, b' ');
        }
        let context = if line.start && line.ids.is_empty() && shared.teacher.tables.canonical.tokenizer.dummy.is_some()
        {
            // A text without tokens stands before the teacher's dummy prefix, which is not part of what comes next.
            grower.work.contexts.feed_all(&shared.student, context, prefix.behind_dummy())
        } else {
            prefix.follow(grower, context, depth)
        };
        let work = &mut *grower.work;
        let closing = work.contexts.closing(context);
        let reads = closing.is_some();
        let found = work.next_by_readings(shared, context);
        let label = match closing {
            Some(OUTSIDE) => OUT,
            Some(TRACK) => UNKNOWN,
            Some(label) => i64::from(label),
            None => found.closing.map_or(UNKNOWN, i64::from),
        };
        let known = shared.reads_all() || (reads && work.states.complete(state));
        if found.settled() && known && label != UNKNOWN {
            return Ok(Closing { label, certain: true, reads });
        }
        if !exact {
            return Ok(Closing { label, certain: false, reads });
        }
        let found = work.next_exact(shared, state, context);
        let certain = found.sure && found.settled();
        let only = found.labels.first().map_or(OUT, |&label| i64::from(label));
        Ok(Closing { label: if certain { only } else { label }, certain, reads })
    }
}
