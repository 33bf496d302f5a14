//! Nearest rows by cosine, exactly: a search by 8-bit codes names candidates, whose cosines are then computed in f32.

use super::{MAX_K, Points, Rows};
use crate::gpu::{Address, Buffer, Gpu, int};
use crate::norm::unit_rows;
use crate::search_codes::SearchScale;
use crate::topk::{Neighbours, Screen, Screened, check, search_all};
use crate::{Isa, Matrix, Result};
use rayon::prelude::*;
use std::sync::Arc;

/// Exact nearest rows by cosine, screened by 8-bit codes: [`Screened`] on a GPU, with the same result.
#[derive(Debug)]
pub struct CosineSearch {
    screen: Screen,
    unit: Matrix<f32>,
    unit_there: Buffer<f32>,
    codes: Points,
}

/// `MeasureParams` of search_finish.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct MeasureParams {
    queries: Address,
    points: Address,
    query_count: i32,
    point_count: i32,
    dimensions: i32,
    padding: i32,
    candidates: Address,
    products: Address,
    candidate_count: i32,
    padding_too: i32,
    bounds: Address,
    square_scale: f64,
    k: i32,
    padding_three: i32,
    indices: Address,
    cosines: Address,
    exact: Address,
}

impl CosineSearch {
    /// Takes the rows of `points` (n × d) to the GPU; fails at a value that is no finite number.
    pub fn try_new(gpu: &Arc<Gpu>, points: &Matrix<f32>) -> Result<Self> {
        points.check_finite()?;
        let unit = unit_rows(points);
        let (screen, codes) = Screen::try_new(Isa::detect(), &unit)?;
        let unit_there = gpu.upload(unit.as_slice())?;
        Ok(Self { screen, unit_there, codes: Points::codes(gpu, &codes)?, unit })
    }

    /// As [`Screened::topk`].
    pub fn topk(&self, queries: &Matrix<f32>, k: usize) -> Result<Neighbours<f32>> {
        check(queries.cols(), self.unit.cols(), self.unit.rows(), k)?;
        queries.check_finite()?;
        let (rows, cols, gpu) = (queries.rows(), queries.cols(), self.codes.gpu());
        let mut near = Neighbours { indices: Matrix::zeros(rows, k), scores: Matrix::zeros(rows, k) };
        if rows == 0 || k == 0 {
            return Ok(near);
        }
        let queries = unit_rows(queries);
        let scale: SearchScale = self.screen.scale;
        let codes = scale.codes(&queries)?;
        let isa = Isa::detect();
        let bound = |i| self.screen.bound(isa, queries.row(i), codes.row(i));
        let bounds: Vec<f64> = (0..rows).into_par_iter().map(bound).collect();
        let taken = Screened::candidates(k).min(self.unit.rows()).min(MAX_K.max(k));
        let candidates = self.codes.nearest(&Rows::codes(gpu, &codes)?, taken)?;
        let (queries_there, bounds) = (gpu.upload(queries.as_slice())?, gpu.upload(&bounds)?);
        let (indices, cosines) = (gpu.allocate::<u32>(rows * k)?, gpu.allocate::<f32>(rows * k)?);
        let exact = gpu.allocate::<i32>(rows)?;
        let launch = gpu
            .launch("search_measure")
            .grid(rows.div_ceil(4), 1)
            .block(128)
            .shared(4 * (k + 64) * size_of::<u64>())
            .arg(MeasureParams {
                queries: queries_there.address(),
                points: self.unit_there.address(),
                query_count: int(rows),
                point_count: int(self.unit.rows()),
                dimensions: int(cols),
                padding: 0,
                candidates: candidates.indices.address(),
                products: candidates.products.address(),
                candidate_count: int(taken),
                padding_too: 0,
                bounds: bounds.address(),
                square_scale: f64::from(scale.get()).powi(2),
                k: int(k),
                padding_three: 0,
                indices: indices.address(),
                cosines: cosines.address(),
                exact: exact.address(),
            });
        // SAFETY: candidates are rows of the points; outputs have k numbers a query, `exact` one.
        unsafe { launch.start() }?;
        indices.download_into(near.indices.as_mut_slice())?;
        cosines.download_into(near.scores.as_mut_slice())?;
        // Many points within the codes' error of each other: these queries are searched for among all, in f32.
        let exact = exact.download(rows)?;
        let open: Vec<u32> = (0..rows as u32).filter(|&i| exact[i as usize] == 0).collect();
        search_all(isa, &queries, &self.unit, &open, &mut near);
        Ok(near)
    }
}
