//! `_core.Tokenizer`.

use std::sync::Arc;

use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyBytes;

use super::{Ids, ids_of};
use crate::plan::enumerate_bytes;
use crate::shared::SharedTokenizer;
use crate::tokenizer::Tokenizer as Core;

type Array<'py, T> = Bound<'py, PyArray1<T>>;

/// A tokenizer.json, read once and never changed.
#[pyclass(frozen, module = "crosstok._core")]
pub struct Tokenizer {
    pub(super) shared: Arc<SharedTokenizer>,
}

impl Tokenizer {
    fn core(&self) -> &Core {
        &self.shared.tokenizer
    }
}

fn wide(ids: Vec<u32>) -> Vec<i64> {
    ids.into_iter().map(i64::from).collect()
}

#[pymethods]
impl Tokenizer {
    #[new]
    fn new(py: Python<'_>, json: &[u8]) -> PyResult<Self> {
        let core = py.detach(|| Core::from_json(json))?;
        Ok(Self { shared: Arc::new(SharedTokenizer::new(core)) })
    }

    fn to_json<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.core().raw())
    }

    #[getter]
    fn vocab_size(&self) -> usize {
        self.core().vocab_size()
    }

    #[getter]
    fn fingerprint(&self, py: Python<'_>) -> String {
        py.detach(|| self.core().fingerprint().to_owned())
    }

    #[getter]
    fn bos(&self) -> Option<u32> {
        self.core().bos()
    }

    #[getter]
    fn special_ids<'py>(&self, py: Python<'py>) -> Array<'py, i64> {
        PyArray1::from_vec(py, wide(self.core().special_ids().to_vec()))
    }

    fn encode<'py>(&self, py: Python<'py>, text: &str, start: bool) -> PyResult<Array<'py, i64>> {
        let ids = py.detach(|| self.core().encode(text, start))?;
        Ok(PyArray1::from_vec(py, wide(ids)))
    }

    fn encode_batch<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<PyBackedStr>,
        start: bool,
        num_threads: usize,
    ) -> PyResult<(Array<'py, i64>, Array<'py, i64>)> {
        let encoded = py.detach(|| {
            let texts: Vec<&str> = texts.iter().map(|t| &**t).collect();
            self.core().encode_batch(&texts, start, num_threads)
        })?;
        let mut offsets = vec![0];
        let mut values = Vec::with_capacity(encoded.iter().map(Vec::len).sum());
        for ids in encoded {
            values.extend(ids.into_iter().map(i64::from));
            offsets.push(values.len() as i64);
        }
        Ok((PyArray1::from_vec(py, values), PyArray1::from_vec(py, offsets)))
    }

    fn decode<'py>(&self, py: Python<'py>, ids: Ids<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let ids = ids_of(&ids)?;
        let bytes = py.detach(|| self.core().decode(&ids))?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn token_bytes<'py>(&self, py: Python<'py>, id: u32) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, self.core().token_bytes(id)?))
    }

    fn normalize(&self, py: Python<'_>, text: &str) -> String {
        py.detach(|| self.core().normalize(text))
    }

    fn check_admissible(&self, py: Python<'_>, text: &str, start: bool) -> PyResult<()> {
        Ok(py.detach(|| self.core().admissible(text, start))?)
    }

    fn is_canonical(&self, py: Python<'_>, ids: Ids<'_>, complete: bool, start: bool) -> PyResult<bool> {
        let ids = ids_of(&ids)?;
        Ok(py.detach(|| self.shared.is_canonical(&ids, complete, start))?)
    }

    fn canonical_next<'py>(&self, py: Python<'py>, ids: Ids<'py>, start: bool) -> PyResult<Array<'py, bool>> {
        let ids = ids_of(&ids)?;
        let flags = py.detach(|| {
            let mask = self.shared.canonical_next(&ids, start)?;
            Ok::<_, crate::Error>((0..mask.len()).map(|id| mask.get(id)).collect())
        })?;
        Ok(PyArray1::from_vec(py, flags))
    }

    fn merge_dag(&self, id: u32) -> PyResult<Vec<(u32, u32, u32)>> {
        Ok(self.core().merge_dag(id)?)
    }

    fn covers<'py>(&self, py: Python<'py>, prefix: &[u8]) -> PyResult<Vec<Array<'py, i64>>> {
        let covers = py.detach(|| enumerate_bytes(&*self.shared.byte_tables()?, prefix))?;
        Ok(covers.into_iter().map(|ids| PyArray1::from_vec(py, ids)).collect())
    }

    /// The tokenizer of the first merges, and for each id here the id there (4294967295 where it is dropped).
    fn first_merges<'py>(&self, py: Python<'py>, n: usize) -> PyResult<(Self, Array<'py, i64>)> {
        let (core, new_ids) = py.detach(|| self.core().first_merges_with_ids(n))?;
        Ok((Self { shared: Arc::new(SharedTokenizer::new(core)) }, PyArray1::from_vec(py, wide(new_ids))))
    }
}
