//! Python bindings: they convert and let go of the interpreter; nothing is computed here.
#![allow(clippy::needless_pass_by_value)] // arguments are extracted from Python objects, so they come by value

mod errors;
mod pair;
mod tokenizer;

use numpy::{PyReadonlyArray1, PyReadonlyArrayDyn};
use pyo3::prelude::*;

use crate::error::{Error, Result};

/// `crosstok._core`
#[pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::pair::{Beyond, CoverBatch, Extension, Following, Pair, Plan, enumerate_covers};
    #[pymodule_export]
    use super::tokenizer::Tokenizer;

    /// Whether the module was built with optimisations (benchmarks refuse to run otherwise).
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("build_profile", if cfg!(debug_assertions) { "debug" } else { "release" })
    }
}

type Ids<'py> = PyReadonlyArray1<'py, i64>;

/// Token ids from an int64 array.
fn ids_of(array: &Ids<'_>) -> Result<Vec<u32>> {
    array.as_array().iter().map(|&id| id_of(id)).collect()
}

fn id_of(id: i64) -> Result<u32> {
    u32::try_from(id).map_err(|_| Error::Invalid(format!("id {id} is out of range")))
}

/// Sequences of ids from flat values and offsets.
fn ragged_of(values: &Ids<'_>, offsets: &Ids<'_>) -> Result<Vec<Vec<u32>>> {
    let (values, offsets) = (values.as_array(), offsets.as_array());
    let bad = || Error::Invalid("offsets do not rise from 0 to the number of values".into());
    let ends: Vec<usize> =
        offsets.iter().map(|&o| usize::try_from(o)).collect::<std::result::Result<_, _>>().map_err(|_| bad())?;
    if ends.first() != Some(&0) || ends.last() != Some(&values.len()) || ends.windows(2).any(|w| w[0] > w[1]) {
        return Err(bad());
    }
    ends.windows(2).map(|w| (w[0]..w[1]).map(|at| id_of(values[at])).collect()).collect()
}

/// One flag a text.
fn flags_of(flags: &PyReadonlyArrayDyn<'_, bool>, texts: usize) -> Result<Vec<bool>> {
    let flags: Vec<bool> = flags.as_array().iter().copied().collect();
    if flags.len() == texts {
        Ok(flags)
    } else {
        Err(Error::Invalid(format!("{} flags for {texts} texts", flags.len())))
    }
}
