//! Boundaries that text to come may still move (docs/mathematics.md, section 3).
//!
//! A state is what is guessed and what is owed. Reading a character one decides whether a piece ends before it
//! ([`Step::Cut`]) or not ([`Step::Join`]). A cut is possible where the open piece matches; the threads that the matcher
//! would have preferred become *obligations*: they must never match. Joining keeps only the threads that are preferred
//! to the match. Several layers run side by side; a cut in an outer layer is the end of the input for the inner ones,
//! which then start afresh. All states that some continuation completes are found when the automaton is built; a
//! transition leads only to those.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::classes::{Class, ClassSet};
use super::program::{Program, Thread};

/// A state of [`Boundaries`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State(pub u32);

/// Whether a piece ends before the next character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    Join,
    Cut,
}

/// The states that a step may lead to (guesses make it more than one).
pub type States = SmallVec<[State; 2]>;

const MAX_STATES: usize = 100_000;

/// The automaton; immutable once built.
#[derive(Debug)]
pub struct Boundaries {
    classes: usize,
    /// Indexed by (state × 2 + step) × classes + class.
    next: Vec<States>,
    complete: Vec<bool>,
    /// Indexed by state × 2 + step: the classes with which it leads anywhere.
    possible: Vec<ClassSet>,
}

/// What one layer has open.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Mode {
    /// The input has just begun.
    Start,
    /// A run of characters at which no match starts.
    Gap,
    /// A match with these threads; it must come to its end.
    Open(Vec<Thread>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Layer {
    mode: Mode,
    /// Threads that must never match; sorted.
    obligations: Vec<Thread>,
}

type Layers = Vec<Layer>;

impl Boundaries {
    /// The state before any character; nothing is open.
    pub const START: State = State(0);

    /// From the programs of the layers, outermost first. Fails where there are too many states.
    pub fn new(programs: &[Program], classes: usize) -> Result<Self, String> {
        let start = vec![Layer { mode: Mode::Start, obligations: Vec::new() }; programs.len()];
        let mut number: FxHashMap<Layers, u32> = FxHashMap::default();
        number.insert(start.clone(), 0);
        let mut states = vec![start];
        let mut next: Vec<States> = Vec::new();
        let mut at = 0;
        while at < states.len() {
            for step in [Step::Join, Step::Cut] {
                for class in 0..classes {
                    let reached = step_layers(programs, &states[at], step, class as Class);
                    next.push(reached.into_iter().map(|layers| intern(&mut number, &mut states, layers)).collect());
                }
            }
            if states.len() > MAX_STATES {
                return Err("patterns with too many undecided boundaries".into());
            }
            at += 1;
        }
        let complete: Vec<bool> =
            states.iter().map(|layers| programs.iter().zip(layers).all(|(p, layer)| layer.may_end(p))).collect();
        let mut automaton = Self { classes, next, complete, possible: Vec::new() };
        automaton.drop_dead();
        let live = |targets: &[States]| (0..classes).filter(|&c| !targets[c].is_empty()).map(|c| c as Class).collect();
        automaton.possible = automaton.next.chunks(classes).map(live).collect();
        Ok(automaton)
    }

    /// Where a step may lead. From [`Self::START`] both steps mean the same.
    #[inline]
    pub fn step(&self, state: State, step: Step, class: Class) -> &[State] {
        &self.next[(state.0 as usize * 2 + step as usize) * self.classes + class as usize]
    }

    /// The classes with which a step from `state` leads anywhere.
    #[inline]
    pub fn possible(&self, state: State, step: Step) -> ClassSet {
        self.possible[state.0 as usize * 2 + step as usize]
    }

    /// Whether the text may end in this state.
    #[inline]
    pub fn complete(&self, state: State) -> bool {
        self.complete[state.0 as usize]
    }

    /// Removes transitions into states that no continuation completes.
    fn drop_dead(&mut self) {
        let count = self.complete.len();
        let per_state = 2 * self.classes;
        let mut before: Vec<Vec<u32>> = vec![Vec::new(); count];
        for (at, targets) in self.next.iter().enumerate() {
            for target in targets {
                before[target.0 as usize].push((at / per_state) as u32);
            }
        }
        let mut live = self.complete.clone();
        let mut stack: Vec<usize> = (0..count).filter(|&s| live[s]).collect();
        while let Some(state) = stack.pop() {
            for &source in &before[state] {
                if !std::mem::replace(&mut live[source as usize], true) {
                    stack.push(source as usize);
                }
            }
        }
        for targets in &mut self.next {
            targets.retain(|t| live[t.0 as usize]);
        }
    }
}

fn intern(number: &mut FxHashMap<Layers, u32>, states: &mut Vec<Layers>, layers: Layers) -> State {
    let fresh = states.len() as u32;
    State(*number.entry(layers).or_insert_with_key(|layers| {
        states.push(layers.clone());
        fresh
    }))
}

/// All states after reading `class`: one for joining, one or more for each layer that may cut.
fn step_layers(programs: &[Program], layers: &Layers, step: Step, class: Class) -> Vec<Layers> {
    let fresh = |l: usize| Layer { mode: Mode::Start, obligations: Vec::new() }.begin(&programs[l], class);
    let joined = |l: usize| layers[l].join(&programs[l], class).into_iter().collect::<Vec<_>>();
    let count = layers.len();
    if layers.first().is_some_and(|l| l.mode == Mode::Start) {
        return product((0..count).map(fresh));
    }
    match step {
        Step::Join => product((0..count).map(joined)),
        Step::Cut => (0..count)
            .filter(|cut| (cut + 1..count).all(|l| layers[l].may_end(&programs[l])))
            .flat_map(|cut| {
                product((0..count).map(|l| match l.cmp(&cut) {
                    std::cmp::Ordering::Less => joined(l),
                    std::cmp::Ordering::Equal => layers[l].cut(&programs[l], class),
                    std::cmp::Ordering::Greater => fresh(l),
                }))
            })
            .collect(),
    }
}

fn product(parts: impl Iterator<Item = Vec<Layer>>) -> Vec<Layers> {
    parts.fold(vec![Vec::new()], |done: Vec<Layers>, options| {
        done.iter()
            .flat_map(|layers| {
                options.iter().map(move |layer| {
                    let mut layers = layers.clone();
                    layers.push(layer.clone());
                    layers
                })
            })
            .collect()
    })
}

impl Layer {
    /// The layer after `class` where a piece begins: a match starts here, or (guessed) none does.
    fn begin(&self, program: &Program, class: Class) -> Vec<Layer> {
        let Some(owed) = self.owed(program, Some(class)) else { return Vec::new() };
        let threads = program.read(&program.resolve(program.start(), Some(class)).reading, class);
        let gap = extend_owed(program, &owed, &threads).map(|obligations| Layer { mode: Mode::Gap, obligations });
        let open = (!threads.is_empty()).then_some(Layer { mode: Mode::Open(threads), obligations: owed });
        open.into_iter().chain(gap).collect()
    }

    /// The layer after `class` if no piece ends before it.
    fn join(&self, program: &Program, class: Class) -> Option<Layer> {
        match &self.mode {
            Mode::Start => None,
            Mode::Gap => self.begin(program, class).into_iter().find(|layer| layer.mode == Mode::Gap),
            Mode::Open(threads) => {
                let obligations = self.owed(program, Some(class))?;
                let threads = program.read(&program.resolve(threads, Some(class)).reading, class);
                (!threads.is_empty()).then_some(Layer { mode: Mode::Open(threads), obligations })
            }
        }
    }

    /// The layers after `class` if a piece ends before it.
    fn cut(&self, program: &Program, class: Class) -> Vec<Layer> {
        match &self.mode {
            Mode::Start => Vec::new(),
            // A gap is as long as can be: what follows it is a match.
            Mode::Gap => self.begin(program, class).into_iter().filter(|layer| layer.mode != Mode::Gap).collect(),
            Mode::Open(threads) => {
                let resolved = program.resolve(threads, Some(class));
                if !resolved.matched {
                    return Vec::new();
                }
                // What the matcher preferred to this match must come to nothing.
                let preferred = program.read(&resolved.reading, class);
                self.begin(program, class)
                    .into_iter()
                    .filter_map(|layer| {
                        let obligations = extend_owed(program, &layer.obligations, &preferred)?;
                        Some(Layer { mode: layer.mode, obligations })
                    })
                    .collect()
            }
        }
    }

    /// Whether the input may end here.
    fn may_end(&self, program: &Program) -> bool {
        self.owed(program, None).is_some()
            && match &self.mode {
                Mode::Start | Mode::Gap => true,
                Mode::Open(threads) => program.resolve(threads, None).matched,
            }
    }

    /// The obligations after the next character; none if one of them matches.
    fn owed(&self, program: &Program, next: Option<Class>) -> Option<Vec<Thread>> {
        let mut owed = Vec::new();
        // One by one: a thread that matches must not hide those behind it.
        for &thread in &self.obligations {
            let resolved = program.resolve(&[thread], next);
            if resolved.matched {
                return None;
            }
            if let Some(class) = next {
                let threads = program.read(&resolved.reading, class);
                owed = extend_owed(program, &owed, &threads)?;
            }
        }
        Some(owed)
    }
}

/// Adds threads to a set of obligations; none if one of them is sure to match.
fn extend_owed(program: &Program, owed: &[Thread], threads: &[Thread]) -> Option<Vec<Thread>> {
    if program.surely_matches(threads) {
        return None;
    }
    let mut all: Vec<Thread> = owed.iter().chain(threads).copied().collect();
    all.sort_unstable();
    all.dedup();
    Some(all)
}

#[cfg(test)]
mod tests {
    use crate::pretoken::Pretokenizer;
    use crate::pretoken::boundaries::{Boundaries, States, Step};
    use proptest::prelude::*;
    use std::sync::LazyLock;

    fn pretokenizer(patterns: &[&str]) -> Pretokenizer {
        Pretokenizer::new(&patterns.iter().map(|p| (*p).to_string()).collect::<Vec<_>>()).unwrap()
    }

    /// The sets of states after each way of cutting `text`, by brute force over cut patterns.
    fn accepts(p: &Pretokenizer, automaton: &Boundaries, text: &str, cuts: &[usize]) -> bool {
        let mut states: States = [Boundaries::START].into_iter().collect();
        for (at, c) in text.char_indices() {
            let step = if cuts.contains(&at) { Step::Cut } else { Step::Join };
            let mut next = States::new();
            for state in &states {
                next.extend_from_slice(automaton.step(*state, step, p.classes().of(c)));
            }
            states = next;
        }
        states.iter().any(|&s| automaton.complete(s))
    }

    const CASES: [&[&str]; 5] = [
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        &[r"\p{N}", r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"],
        &[
            r"\p{N}{1,3}",
            r"[a]+",
            r"[!'][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        &[r"a1|a\n+(?=1)"],
        &[],
    ];

    static COMPILED: LazyLock<Vec<(&[&str], Pretokenizer, Boundaries)>> = LazyLock::new(|| {
        let compile = |patterns: &'static [&'static str]| {
            let p = pretokenizer(patterns);
            let automaton = p.boundaries().unwrap();
            (patterns, p, automaton)
        };
        CASES.map(compile).into()
    });

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn exactly_the_true_cuts_are_accepted(text in r"[ a1\n'sl!]{1,7}") {
            for (patterns, p, automaton) in COMPILED.iter() {
                let mut pieces = Vec::new();
                p.split(&text, &mut pieces);
                let truth: Vec<usize> = pieces.iter().skip(1).map(|r| r.start).collect();
                let inner: Vec<usize> = text.char_indices().map(|(at, _)| at).filter(|&at| at > 0).collect();
                for subset in 0..1usize << inner.len() {
                    let cuts: Vec<usize> =
                        inner.iter().enumerate().filter(|(i, _)| subset >> i & 1 == 1).map(|(_, &at)| at).collect();
                    prop_assert_eq!(accepts(p, automaton, &text, &cuts), cuts == truth, "{:?} {:?} {:?}", patterns, text, cuts);
                }
            }
        }
    }
}
