//! Explicit covers of several texts, in parallel, in any regime.

use super::covers::{Covers, too_many};
use super::{covers, decided};
use crate::error::Result;
use crate::pair::{Pair, Regime};
use crate::parallel::map_blocks;

/// Lists the covers of one text, given its ids and the id that ends it.
type ListOne<'a> = dyn Fn(&[u32], Option<u32>) -> Result<Covers> + Sync + 'a;

/// Covers of the prefixes of student sequences. A last id that ends a text asks for complete texts. In the general regime
/// these are the byte covers that are not out. Fails (plan) where there are more than `max_covers` in all.
pub fn enumerate(pair: &Pair, texts: &[Vec<u32>], max_covers: Option<usize>, threads: usize) -> Result<Covers> {
    let list_one: Box<ListOne<'_>> = if pair.regime() == Regime::General {
        let shared = pair.decisions()?;
        Box::new(move |ids, end| decided::list(pair, &shared, ids, end, max_covers))
    } else {
        let tables = pair.tables()?;
        Box::new(move |ids, end| covers::list(&tables, ids, end, max_covers))
    };
    let eos = |id: &u32| pair.student_eos.contains(id);
    let parts = map_blocks(texts.len(), 1, threads, |block| {
        block
            .map(|t| {
                let ended = texts[t].last().is_some_and(eos);
                let ids = &texts[t][..texts[t].len() - usize::from(ended)];
                let end = ended.then(|| pair.teacher_eos[0]);
                list_one(ids, end)
            })
            .collect::<Result<Vec<_>>>()
    });
    let mut all = Covers { position_ptr: vec![0], text_ptr: vec![0], ..Covers::default() };
    for part in parts {
        part?.into_iter().for_each(|covers| all.append(covers));
        if max_covers.is_some_and(|max| all.cover_node.len() > max) {
            return Err(too_many(max_covers));
        }
    }
    Ok(all)
}
