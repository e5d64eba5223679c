//! `_core.Pair`, `_core.Plan` and `_core.enumerate_covers`.

use std::sync::Arc;

use numpy::{PyArray1, PyReadonlyArrayDyn, PyReadwriteArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use super::tokenizer::Tokenizer;
use super::{Ids, flags_of, ragged_of};
use crate::error::Error;
use crate::pair::Pair as Core;
use crate::plan::{
    Beyond as CoreBeyond, Covers, Extension as CoreExtension, Following as CoreFollowing, Plan as CorePlan, Purpose,
    enumerate,
};

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
        boundaries: bool,
        end_rows: PyReadonlyArrayDyn<'py, bool>,
        num_threads: usize,
    ) -> PyResult<Plan> {
        let texts = ragged_of(&values, &offsets)?;
        let (start, end_rows) = (flags_of(&start, texts.len())?, flags_of(&end_rows, texts.len())?);
        let purposes: Vec<Purpose> = start
            .into_iter()
            .zip(end_rows)
            .map(|(start, end_rows)| Purpose { start, every_node, boundaries, end_rows })
            .collect();
        let core = py.detach(|| CorePlan::new(&self.core, &texts, &purposes, num_threads))?;
        Ok(Plan { core })
    }

    /// The teacher's tokens in the order that plans refer to.
    fn order<'py>(&self, py: Python<'py>) -> PyResult<Array<'py, i64>> {
        let order = py.detach(|| self.core.order())?;
        Ok(PyArray1::from_iter(py, order.into_iter().map(i64::from)))
    }

    /// The first student token of each teacher token by itself, in that order; −1 for none.
    fn first_tokens<'py>(&self, py: Python<'py>) -> PyResult<Array<'py, i64>> {
        let first = py.detach(|| self.core.first_tokens(0))?;
        Ok(PyArray1::from_iter(py, first.into_iter().map(|token| token.map_or(-1, i64::from))))
    }

    /// How many student tokens are longer than each one and begin with it, by id.
    fn longer_tokens<'py>(&self, py: Python<'py>) -> PyResult<Array<'py, i64>> {
        let longer = py.detach(|| self.core.longer_tokens())?;
        Ok(PyArray1::from_iter(py, longer.into_iter().map(i64::from)))
    }

    /// The spelling order: teacher tokens, offsets and student ids of their spellings.
    fn spelling<'py>(&self, py: Python<'py>) -> PyResult<(Array<'py, i64>, Array<'py, i64>, Array<'py, i64>)> {
        let tables = py.detach(|| self.core.tables())?;
        let wide = |ids: &[u32]| PyArray1::from_iter(py, ids.iter().map(|&id| i64::from(id)));
        Ok((wide(tables.spelling.tokens()), wide(tables.spelling.ptr()), wide(tables.spelling.ids())))
    }
}

/// Plans of several texts.
#[pyclass(module = "crosstok._core")]
pub struct Plan {
    core: CorePlan,
}

/// Getters that hand out flat int64 arrays.
macro_rules! arrays {
    ($type:ident: $item:ty { $($name:ident),* }) => {
        #[pymethods]
        impl $type {
            $(
                #[getter]
                fn $name<'py>(&self, py: Python<'py>) -> Array<'py, $item> {
                    PyArray1::from_slice(py, &self.core.$name)
                }
            )*
        }
    };
}

arrays!(Plan: i64 {
    student_ids,
    student_ptr,
    node_ptr,
    node_token,
    node_parent,
    node_depth,
    range_node,
    range_first,
    range_last,
    range_depth,
    whole_node,
    whole_depth
});
arrays!(Plan: i8 { range_kind });
arrays!(Plan: bool { node_complete, whole_end });

#[pymethods]
impl Plan {
    /// Adds the prefixes (node, token), each with a row of its own.
    fn extend(&mut self, py: Python<'_>, nodes: Ids<'_>, tokens: Ids<'_>, num_threads: usize) -> PyResult<Extension> {
        let (nodes, tokens) = (vector(&nodes), vector(&tokens));
        let core = py.detach(|| self.core.extend(&nodes, &tokens, num_threads))?;
        Ok(Extension { core })
    }

    /// What the prefixes (node, token) say about s_1..s_depth: 1 in, 0 undecided, −1 out, 2 given up.
    fn decide<'py>(
        &self,
        py: Python<'py>,
        nodes: Ids<'py>,
        tokens: Ids<'py>,
        depths: Ids<'py>,
        quick: bool,
        num_threads: usize,
    ) -> PyResult<Array<'py, i8>> {
        let (nodes, tokens, depths) = (vector(&nodes), vector(&tokens), vector(&depths));
        let decided = py.detach(|| self.core.decide(&nodes, &tokens, &depths, quick, num_threads))?;
        Ok(PyArray1::from_vec(py, decided))
    }

    /// What the rows are for where whole distributions are wanted.
    fn beyond(&self, py: Python<'_>) -> PyResult<Beyond> {
        Ok(Beyond { core: py.detach(|| self.core.beyond())? })
    }

    /// What follows s_1..s_depth in the text of each prefix (node, token): label, certain, reads.
    #[allow(clippy::type_complexity)] // three arrays
    fn closings<'py>(
        &self,
        py: Python<'py>,
        nodes: Ids<'py>,
        tokens: Ids<'py>,
        depths: Ids<'py>,
        exact: bool,
        num_threads: usize,
    ) -> PyResult<(Array<'py, i64>, Array<'py, bool>, Array<'py, bool>)> {
        let (nodes, tokens, depths) = (vector(&nodes), vector(&tokens), vector(&depths));
        let found = py.detach(|| self.core.closings(&nodes, &tokens, &depths, exact, num_threads))?;
        Ok((
            PyArray1::from_iter(py, found.iter().map(|closing| closing.label)),
            PyArray1::from_iter(py, found.iter().map(|closing| closing.certain)),
            PyArray1::from_iter(py, found.iter().map(|closing| closing.reads)),
        ))
    }

    /// What the rows of nodes of one text say about the student token after it.
    fn following(&self, py: Python<'_>, text: usize, nodes: Ids<'_>) -> PyResult<Following> {
        let nodes = vector(&nodes);
        let core = py.detach(|| self.core.following(text, &nodes))?;
        Ok(Following { core })
    }

    /// What the prefixes (node, token) of one text say about it, exactly.
    fn following_exact(&self, py: Python<'_>, text: usize, nodes: Ids<'_>, tokens: Ids<'_>) -> PyResult<Following> {
        let (nodes, tokens) = (vector(&nodes), vector(&tokens));
        let core = py.detach(|| self.core.following_exact(text, &nodes, &tokens))?;
        Ok(Following { core })
    }

    /// The student's tokens in byte order.
    fn student_order<'py>(&self, py: Python<'py>) -> PyResult<Array<'py, i64>> {
        Ok(PyArray1::from_iter(py, self.core.student_order()?.iter().map(|&token| i64::from(token))))
    }

    /// Writes the canonical next tokens of nodes to `out`, uint8 [len(nodes), width].
    fn masks<'py>(
        &self,
        py: Python<'py>,
        nodes: Ids<'py>,
        mut out: PyReadwriteArray2<'py, u8>,
        num_threads: usize,
    ) -> PyResult<()> {
        let nodes = vector(&nodes);
        let width = out.shape()[1];
        let rows = out.as_slice_mut().map_err(|_| Error::Invalid("the array for masks is not contiguous".into()))?;
        Ok(py.detach(|| self.core.masks(&nodes, width, rows, num_threads))?)
    }
}

fn vector(ids: &Ids<'_>) -> Vec<i64> {
    ids.as_array().iter().copied().collect()
}

/// Nodes that were added to a plan.
#[pyclass(frozen, module = "crosstok._core")]
pub struct Extension {
    core: CoreExtension,
}

arrays!(Extension: i64 {
    node_token,
    node_parent,
    node_text,
    node_depth,
    range_node,
    range_first,
    range_last,
    range_depth,
    whole_node,
    whole_depth
});
arrays!(Extension: i8 { range_kind });
arrays!(Extension: bool { node_complete, whole_end });

#[pymethods]
impl Extension {
    #[getter]
    fn first(&self) -> usize {
        self.core.first
    }
}

/// What a plan's rows are for where whole distributions are wanted.
#[pyclass(frozen, module = "crosstok._core")]
pub struct Beyond {
    core: CoreBeyond,
}

arrays!(Beyond: i64 { exact_node, exact_depth, node, first, last, depth });
arrays!(Beyond: bool { exact_in, exact_given_up, ends });

/// What rows say about the next student token.
#[pyclass(frozen, module = "crosstok._core")]
pub struct Following {
    core: CoreFollowing,
}

arrays!(Following: i64 {
    run_node,
    run_first,
    run_last,
    run_outcome,
    end,
    label_ptr,
    label,
    longer_first,
    longer_last,
    closing
});
arrays!(Following: bool { inside, given_up, outside, sure, splits });

/// Explicit covers of several student sequences.
#[pyclass(frozen, module = "crosstok._core")]
pub struct CoverBatch {
    core: Covers,
}

arrays!(CoverBatch: i64 { node_token, node_parent, cover_node, cover_token, position_ptr, text_ptr });
arrays!(CoverBatch: i8 { status });

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
