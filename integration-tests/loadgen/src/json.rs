//! The flat JSON object that a measurement prints.

use crate::args::Args;
use std::fmt::Write as _;

pub struct Json(String);

impl Json {
    pub fn new() -> Self {
        Json("{".into())
    }

    /// Begins with the labels that `report` groups by.
    pub fn labelled(a: &Args) -> Self {
        let mut j = Json::new();
        for k in ["label", "workload"] {
            if let Some(v) = a.opt(k) {
                j.s(k, v);
            }
        }
        if let Some(v) = a.opt("round") {
            j.n("round", v.parse().unwrap_or(0.0));
        }
        j
    }

    fn key(&mut self, k: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        let _ = write!(self.0, "\"{k}\":");
    }

    pub fn s(&mut self, k: &str, v: &str) -> &mut Self {
        self.key(k);
        let v = v.replace('\\', "\\\\").replace('"', "'").replace(['\n', '\r'], " ");
        let _ = write!(self.0, "\"{v}\"");
        self
    }

    pub fn n(&mut self, k: &str, v: f64) -> &mut Self {
        self.key(k);
        if v.fract() == 0.0 && v.abs() < 1e15 {
            let _ = write!(self.0, "{}", v as i64);
        } else if v.is_finite() {
            let _ = write!(self.0, "{v:.3}");
        } else {
            self.0.push_str("null");
        }
        self
    }

    pub fn end(&mut self) -> String {
        let mut s = std::mem::take(&mut self.0);
        s.push('}');
        s
    }
}
