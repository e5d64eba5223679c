//! The core's errors as the exceptions of `crosstok.errors`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::error::Error;

/// An exception class of `crosstok.errors`, imported once.
macro_rules! exception {
    ($py:expr, $name:literal) => {{
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        CLASS.import($py, "crosstok.errors", $name)
    }};
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        Python::attach(|py| raise(py, &error).unwrap_or_else(|failed| failed))
    }
}

fn raise(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let message = error.to_string();
    let class = match error {
        Error::Unsupported { .. } => exception!(py, "UnsupportedTokenizerError")?,
        Error::NotCanonical(_) => exception!(py, "NotCanonicalError")?,
        Error::Plan(_) => exception!(py, "PlanError")?,
        Error::Text { index, offset, reason } => {
            let class = exception!(py, "TextError")?;
            return Ok(PyErr::from_value(class.call1((reason, index, offset))?));
        }
        Error::Invalid(_) => return Ok(PyValueError::new_err(message)),
    };
    Ok(PyErr::from_value(class.call1((message,))?))
}
