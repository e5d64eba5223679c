//! `_core.Pair`, `_core.Plan` and `_core.enumerate_covers`.

use std::sync::Arc;

use numpy::{PyArray1, PyReadonlyArrayDyn, PyReadwriteArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use super::tokenizer::Tokenizer;
use super::{Ids, flags_of, ragged_of};
use crate::error::Error;
use crate::pair::Pair as Core;
use crate::plan::{Covers, Plan as CorePlan, Purpose, enumerate};

type Array<'py, T> = Bound<'py, PyArray1<T>>;

/// Two tokenizers and their relation.
#[pyclass(frozen, module = "crosstok._core")]
pub struct Pair {
    core: Arc<Core>,
}

#[pymethods]
impl Pair {
    #[new]
    fn new(
        py: Python<'_>,
        teacher: &Tokenizer,
        student: &Tokenizer,
        teacher_eos: Vec<u32>,
        student_eos: Vec<u32>,
    ) -> PyResult<Self> {
        let (teacher, student) = (Arc::clone(&teacher.shared), Arc::clone(&student.shared));
        let core = py.detach(|| Core::new(teacher, student, teacher_eos, student_eos))?;
        Ok(Self { core: Arc::new(core) })
    }

    #[getter]
    fn regime(&self) -> &'static str {
        self.core.regime().name()
    }

    #[getter]
    fn reason(&self) -> &str {
        self.core.reason()
    }

    /// A plan for texts given by their student ids; flags per text.
    #[allow(clippy::too_many_arguments)] // flat arrays in, as everywhere across this border
    fn plan<'py>(
        &self,
        py: Python<'py>,
        values: Ids<'py>,
        offsets: Ids<'py>,
        start: PyReadonlyArrayDyn<'py, bool>,
        every_node: bool,
        end_rows: PyReadonlyArrayDyn<'py, bool>,
        num_threads: usize,
    ) -> PyResult<Plan> {
        let texts = ragged_of(&values, &offsets)?;
        let (start, end_rows) = (flags_of(&start, texts.len())?, flags_of(&end_rows, texts.len())?);
        let purposes: Vec<Purpose> =
            start.into_iter().zip(end_rows).map(|(start, end_rows)| Purpose { start, every_node, end_rows }).collect();
        let core = py.detach(|| CorePlan::new(&self.core, &texts, &purposes, num_threads))?;
        Ok(Plan { core })
    }

    /// The spelling order: teacher tokens, offsets and student ids of their spellings.
    fn spelling<'py>(&self, py: Python<'py>) -> PyResult<(Array<'py, i64>, Array<'py, i64>, Array<'py, i64>)> {
        let tables = py.detach(|| self.core.tables())?;
        let wide = |ids: &[u32]| PyArray1::from_iter(py, ids.iter().map(|&id| i64::from(id)));
        Ok((wide(tables.spelling.tokens()), wide(tables.spelling.ptr()), wide(tables.spelling.ids())))
    }
}

/// Plans of several texts.
#[pyclass(frozen, module = "crosstok._core")]
pub struct Plan {
    core: CorePlan,
}

/// Getters that hand out flat int64 arrays.
macro_rules! arrays {
    ($type:ident { $($name:ident),* }) => {
        #[pymethods]
        impl $type {
            $(
                #[getter]
                fn $name<'py>(&self, py: Python<'py>) -> Array<'py, i64> {
                    PyArray1::from_slice(py, &self.core.$name)
                }
            )*
        }
    };
}

arrays!(Plan {
    student_ids,
    student_ptr,
    node_ptr,
    node_token,
    node_parent,
    node_depth,
    range_node,
    range_first,
    range_last,
    range_depth
});

#[pymethods]
impl Plan {
    #[getter]
    fn node_complete<'py>(&self, py: Python<'py>) -> Array<'py, bool> {
        PyArray1::from_slice(py, &self.core.node_complete)
    }

    /// Writes the canonical next tokens of nodes to `out`, uint8 [len(nodes), width].
    fn masks<'py>(
        &self,
        py: Python<'py>,
        nodes: Ids<'py>,
        mut out: PyReadwriteArray2<'py, u8>,
        num_threads: usize,
    ) -> PyResult<()> {
        let nodes: Vec<i64> = nodes.as_array().iter().copied().collect();
        let width = out.shape()[1];
        let rows = out.as_slice_mut().map_err(|_| Error::Invalid("the array for masks is not contiguous".into()))?;
        Ok(py.detach(|| self.core.masks(&nodes, width, rows, num_threads))?)
    }
}

/// Explicit covers of several student sequences.
#[pyclass(frozen, module = "crosstok._core")]
pub struct CoverBatch {
    core: Covers,
}

arrays!(CoverBatch { node_token, node_parent, cover_node, cover_token, position_ptr, text_ptr });

/// Relative covers of every prefix of several student sequences; too many are a `PlanError`.
#[pyfunction]
pub fn enumerate_covers<'py>(
    py: Python<'py>,
    pair: &Pair,
    values: Ids<'py>,
    offsets: Ids<'py>,
    max_covers: Option<usize>,
    num_threads: usize,
) -> PyResult<CoverBatch> {
    let texts = ragged_of(&values, &offsets)?;
    let core = py.detach(|| enumerate(&pair.core, &texts, max_covers, num_threads))?;
    Ok(CoverBatch { core })
}
