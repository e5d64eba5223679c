//! The stages of the core one by one: load, encode, canonical prefixes, masks, plan, covers.
//!
//!     cargo bench --bench stages              # all
//!     cargo bench --bench stages -- masks     # those with this in their name
//!
//! The demo's tokenizer is part of the repository, so it is always measured; published ones where `../shared/tokenizers`
//! exists. Text is the repository's licence, the same everywhere. `benches/run.py` measures the whole, from Python.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};

use crosstok::canonical::masks::Masks;
use crosstok::canonical::{Canonical, State};
use crosstok::pair::Pair;
use crosstok::plan::{Plan, Purpose, enumerate};
use crosstok::shared::SharedTokenizer;
use crosstok::tokenizer::Tokenizer;
use crosstok::{Error, Result};

/// English prose of 11 KB.
const TEXT: &str = include_str!("../LICENSE");
/// Nodes whose masks are made in one iteration; each is another state, so that a cache smaller than this is no help.
const MASKS: usize = 256;
/// Student tokens whose covers are listed: a byte of a large vocabulary has thousands.
const COVERED: usize = 64;
/// Published tokenizers of different make: small, byte-level with NFC, SentencePiece-style.
const PUBLISHED: [&str; 3] = ["smollm2", "qwen3", "gemma3"];
/// What the label-scoring plan of a text is for.
const LABELS: Purpose = Purpose { start: false, every_node: false, boundaries: false, end_rows: true };

/// One tokenizer.json, and what the stages start from.
struct Fixture {
    name: String,
    json: Vec<u8>,
    tokenizer: Arc<SharedTokenizer>,
    canonical: Arc<Canonical>,
    ids: Vec<u32>,
}

impl Fixture {
    fn new(name: &str, path: &Path) -> Result<Self> {
        let json = fs::read(path).map_err(|e| Error::Invalid(format!("{}: {e}", path.display())))?;
        let tokenizer = Arc::new(SharedTokenizer::new(Tokenizer::from_json(&json)?));
        let canonical = tokenizer.canonical()?;
        let ids = tokenizer.tokenizer.encode(TEXT, false)?;
        Ok(Self { name: name.to_owned(), json, tokenizer, canonical, ids })
    }

    /// The states along the text, one after each token.
    fn states(&self) -> Vec<State> {
        let grow = |state: &mut State, &id: &u32| {
            *state = self.canonical.push(state, id)?;
            Some(state.clone())
        };
        self.ids.iter().scan(self.canonical.start(false), grow).collect()
    }

    /// This tokenizer as teacher of its first `merges` merges.
    fn pair(&self, merges: usize) -> Result<Pair> {
        let student = Arc::new(SharedTokenizer::new(self.tokenizer.tokenizer.first_merges(merges)?));
        // Which special token ends a text makes no difference to the time.
        let end = |t: &SharedTokenizer| t.tokenizer.special_ids()[..1].to_vec();
        let ends = (end(&self.tokenizer), end(&student));
        Pair::new(Arc::clone(&self.tokenizer), student, ends.0, ends.1)
    }
}

/// The demo's tokenizer, and those published ones that are at hand.
fn fixtures() -> Vec<Fixture> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![("demo", root.join("python/crosstok/demo/tokenizer.json"))];
    let shared = |name: &str| root.join("../shared/tokenizers").join(name).join("tokenizer.json");
    let (found, missing): (Vec<_>, Vec<_>) =
        PUBLISHED.map(|name| (name, shared(name))).into_iter().partition(|(_, path): &(&str, PathBuf)| path.exists());
    for (name, path) in missing {
        eprintln!("{name} is not measured: {} is missing", path.display());
    }
    paths.extend(found);
    let load = |(name, path): &(&str, PathBuf)| {
        Fixture::new(name, path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    paths.iter().map(load).collect()
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group
}

fn load(criterion: &mut Criterion, fixture: &Fixture) {
    let mut group = group(criterion, "load");
    group.throughput(Throughput::Bytes(fixture.json.len() as u64));
    group.bench_function(&fixture.name, |b| b.iter(|| Tokenizer::from_json(black_box(&fixture.json))));
    group.bench_function(format!("{} tables", fixture.name), |b| {
        b.iter(|| Canonical::new(Arc::clone(&fixture.tokenizer.tokenizer)));
    });
    group.finish();
}

fn encode(criterion: &mut Criterion, fixture: &Fixture) {
    let mut group = group(criterion, "encode");
    group.throughput(Throughput::Bytes(TEXT.len() as u64));
    group.bench_function(format!("{} warm", fixture.name), |b| {
        b.iter(|| fixture.tokenizer.tokenizer.encode(black_box(TEXT), false));
    });
    group.finish();
}

fn canonical(criterion: &mut Criterion, fixture: &Fixture) {
    let mut group = group(criterion, "canonical prefixes");
    group.throughput(Throughput::Elements(fixture.ids.len() as u64));
    group.bench_function(&fixture.name, |b| {
        b.iter(|| fixture.canonical.state_after(black_box(&fixture.ids), false));
    });
    group.finish();
}

fn masks(criterion: &mut Criterion, fixture: &Fixture) {
    let mut states = fixture.states();
    states.truncate(MASKS);
    let size = fixture.tokenizer.tokenizer.vocab_size() as u32;
    let make = || Masks::new(Arc::clone(&fixture.canonical), (0..size).collect());
    let all = |masks: &Masks| states.iter().map(|state| masks.next(state).len()).sum::<usize>();
    let mut group = group(criterion, "masks");
    group.throughput(Throughput::Elements(states.len() as u64));
    group.bench_function(format!("{} cold", fixture.name), |b| {
        b.iter_batched(make, |masks| all(&masks), BatchSize::PerIteration);
    });
    let warm = make();
    group.bench_function(format!("{} warm", fixture.name), |b| b.iter(|| all(&warm)));
    group.finish();
}

/// Plans and covers, for students of about half the merges and of none.
fn plan(criterion: &mut Criterion, fixture: &Fixture) {
    for (student, merges) in [("half", fixture.tokenizer.tokenizer.vocab_size() / 2), ("none", 0)] {
        let pair = fixture.pair(merges).expect("first merges make a pair");
        let ids = pair.student.tokenizer.encode(TEXT, false).expect("the student spells what the teacher does");
        let name = format!("{}, {student} of its merges", fixture.name);
        let (few, ids) = (vec![ids[..COVERED].to_vec()], vec![ids]);
        let mut plans = group(criterion, "plan");
        plans.throughput(Throughput::Elements(ids[0].len() as u64));
        plans.bench_function(&name, |b| b.iter(|| Plan::new(&pair, black_box(&ids), &[LABELS], 1)));
        plans.finish();
        let mut covers = group(criterion, "covers");
        covers.throughput(Throughput::Elements(COVERED as u64));
        covers.bench_function(&name, |b| b.iter(|| enumerate(&pair, black_box(&few), None, 1)));
        covers.finish();
    }
}

fn stages(criterion: &mut Criterion) {
    for fixture in fixtures() {
        for stage in [load, encode, canonical, masks, plan] {
            stage(criterion, &fixture);
        }
    }
}

criterion_group!(benches, stages);
criterion_main!(benches);
