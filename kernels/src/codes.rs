//! Products of 8-bit codes: unsigned rows by signed columns, exact in i32.
//!
//! One idea: one packed layout serves every instruction. Columns lie in panels of 32; for every four steps of k a panel
//! has a group of 32 × 4 bytes. VNNI reads a group as two registers (or four), AVX2 and NEON as four and eight, AMX
//! sixteen groups as two tiles, plain code byte by byte. Sums of integers are exact in any order, so all paths return
//! the same bits.
//!
//! - Formula: `c[i][j] = Σ_p a[i][p] · b[p][j]` with a in 0..=255 and b in −128..=127; exact for k up to 65,536.
//! - Layout: rows of A 64-byte lines, zero-padded; a block of C is 32 × 32.
//! - Tiles: 32 × 32 × 64 by AMX (four tiles accumulate), 12 × 32 × 4 by AVX-512 VNNI (24 of 32 registers), 6 × 16 × 4
//!   by AVX-VNNI (12 of 16), 4 × 16 × 4 by AVX2 (8 of 16) and by NEON's dot products (16 of 32), 2 × 16 × 4 by NEON
//!   without.
//! - Cost: 2·m·n·k operations; a cycle of AMX does 2,048, of AVX-512 VNNI 256, of AVX-VNNI 128, of AVX2 48 at most
//!   (four instructions for 64 on three ports) and 33 with what splits bytes into even and odd, of which f32 does 32.

use crate::Isa;
use std::marker::PhantomData;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

/// Columns of a panel, and rows and columns of a block of C.
pub(crate) const BLOCK: usize = 32;

/// Steps of k that a 64-byte line of A holds.
const LINE: usize = 64;

/// A block of C.
pub(crate) type Block = [[i32; BLOCK]; BLOCK];

/// 64 bytes that begin a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; LINE]);

impl Line {
    /// All zero.
    pub(crate) const ZEROS: Self = Self([0; LINE]);
}

/// The left side: rows of unsigned codes.
#[derive(Debug, Clone, Default)]
pub(crate) struct CodeRows {
    rows: usize,
    k: usize,
    /// Rows rounded up to whole blocks, each of whole lines; the padding may hold anything.
    lines: Vec<Line>,
}

/// The right side: columns of signed codes, packed in panels.
#[derive(Debug, Clone, Default)]
pub(crate) struct CodePanels {
    k: usize,
    n: usize,
    /// Per panel: k / 4 groups (rounded up to whole lines of k) of 32 columns × 4 bytes, the padding 0.
    lines: Vec<Line>,
    /// The sum of each column's codes: what one more on all of a row adds to its products.
    sums: Vec<i32>,
}

impl CodeRows {
    /// Makes room for `rows` × `k` codes; what they are must be written.
    pub(crate) fn resize(&mut self, rows: usize, k: usize) {
        (self.rows, self.k) = (rows, k);
        // New lines are zeros; old ones keep what they had, which the zeros of the panels' padding make harmless.
        self.lines.resize(rows.next_multiple_of(BLOCK) * k.div_ceil(LINE), Line::ZEROS);
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Row `i`, to write.
    pub(crate) fn row_mut(&mut self, i: usize) -> &mut [u8] {
        let (stride, k) = (self.stride(), self.k);
        &mut self.bytes_mut()[i * stride..][..k]
    }

    /// All rows, to write, each with its padding.
    pub(crate) fn rows_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let (stride, rows) = (self.stride(), self.rows);
        self.bytes_mut().chunks_exact_mut(stride.max(1)).take(rows)
    }

    /// Bytes from one row to the next.
    fn stride(&self) -> usize {
        self.k.div_ceil(LINE) * LINE
    }

    fn bytes(&self) -> &[u8] {
        self.lines.as_flattened_bytes()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.lines.as_flattened_bytes_mut()
    }
}

/// Lines as the bytes they are.
pub(crate) trait AsBytes {
    fn as_flattened_bytes(&self) -> &[u8];
    fn as_flattened_bytes_mut(&mut self) -> &mut [u8];
}

impl AsBytes for [Line] {
    fn as_flattened_bytes(&self) -> &[u8] {
        // SAFETY: a line is 64 bytes without padding, and bytes have no alignment.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), self.len() * LINE) }
    }

    fn as_flattened_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; any bytes make lines.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), self.len() * LINE) }
    }
}

impl CodePanels {
    /// Packs `k × n` codes given by `at(row, column)`.
    pub(crate) fn pack(n: usize, k: usize, at: impl Fn(usize, usize) -> i8) -> Self {
        let mut packed = Self {
            k,
            n,
            lines: vec![Line::ZEROS; n.div_ceil(BLOCK) * k.div_ceil(LINE) * 32],
            sums: vec![0; n],
        };
        let panel_bytes = packed.panel_lines() * LINE;
        let sums = &mut packed.sums;
        let bytes = packed.lines.as_flattened_bytes_mut();
        for (j, sum) in sums.iter_mut().enumerate() {
            let start = j / BLOCK * panel_bytes + j % BLOCK * 4;
            for p in 0..k {
                let code = at(p, j);
                *sum += i32::from(code);
                bytes[start + p / 4 * BLOCK * 4 + p % 4] = code as u8;
            }
        }
        packed
    }

    /// Makes room for `k × n` codes, all zero.
    pub(crate) fn clear(&mut self, n: usize, k: usize) {
        (self.k, self.n) = (k, n);
        self.lines.clear();
        self.lines.resize(n.div_ceil(BLOCK) * self.panel_lines(), Line::ZEROS);
        self.sums.clear();
        self.sums.resize(n, 0);
    }

    /// Writes column `j`, which must be zero still.
    pub(crate) fn write_column(&mut self, j: usize, codes: &[i8]) {
        let start = j / BLOCK * self.panel_lines() * LINE + j % BLOCK * 4;
        self.sums[j] = codes.iter().map(|code| i32::from(*code)).sum();
        let bytes = &mut self.lines.as_flattened_bytes_mut()[start..];
        let (fours, rest) = codes.as_chunks::<4>();
        for (four, group) in fours.iter().zip(bytes.chunks_mut(BLOCK * 4)) {
            group[..4].copy_from_slice(&four.map(|code| code as u8));
        }
        // Where nothing is left, the last group may end with this column.
        let last = bytes.iter_mut().skip(fours.len() * BLOCK * 4);
        last.zip(rest).for_each(|(byte, code)| *byte = *code as u8);
    }

    /// Writes the rows from `p` on, a multiple of 4, of up to 4 rows of 32 columns from `panel` on; leaves the sums.
    pub(crate) fn write_rows(&mut self, panel: usize, p: usize, rows: &[[i8; BLOCK]; 4]) {
        let start = panel * self.panel_lines() * LINE + p / 4 * BLOCK * 4;
        let group = &mut self.lines.as_flattened_bytes_mut()[start..start + BLOCK * 4];
        for (column, four) in group.chunks_exact_mut(4).enumerate() {
            for (byte, row) in four.iter_mut().zip(rows) {
                *byte = row[column] as u8;
            }
        }
    }

    /// Columns.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// Rows: the length of the sums.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// The sum of each column's codes.
    pub(crate) fn sums(&self) -> &[i32] {
        &self.sums
    }

    /// Lines of a panel: a group of four steps is two.
    fn panel_lines(&self) -> usize {
        self.k.div_ceil(LINE) * 32
    }

    /// All panels, one after the other.
    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }

    fn panel(&self, i: usize) -> &[Line] {
        &self.lines[i * self.panel_lines()..(i + 1) * self.panel_lines()]
    }
}

/// Makes a block for each pair of a first row, of `rows`, and a panel, and has `take` use it while `make` is at the
/// next: `make` calls what it is given with pieces of 0..32, and `take` gets a panel, some rows, and their part of the
/// block. `take` must not multiply: the tiles are busy.
pub(crate) fn overlap<T: Copy + Default>(
    rows: usize,
    pairs: impl Iterator<Item = (usize, usize)>,
    mut make: impl FnMut((usize, usize), &mut [[T; BLOCK]; BLOCK], &mut dyn FnMut(Range<usize>)),
    mut take: impl FnMut(usize, Range<usize>, &[[T; BLOCK]]),
) {
    let mut take = |(first, panel), piece: Range<usize>, block: &[[T; BLOCK]; BLOCK]| {
        let there = rows.min(first + piece.start)..rows.min(first + piece.end);
        if !there.is_empty() {
            take(panel, there.clone(), &block[piece.start..][..there.len()]);
        }
    };
    let (mut before, mut now) = (&mut [[T::default(); BLOCK]; BLOCK], &mut [[T::default(); BLOCK]; BLOCK]);
    let mut waiting: Option<(usize, usize)> = None;
    for pair in pairs {
        let done = waiting.replace(pair);
        make(pair, now, &mut |piece| {
            if let Some(done) = done {
                take(done, piece, before);
            }
        });
        std::mem::swap(&mut before, &mut now);
    }
    if let Some(done) = waiting {
        take(done, 0..BLOCK, before);
    }
}

/// The blocks of a layer of `rows` by `panels`, as pairs of a first row and a panel, panel by panel. Weights come from
/// far away: each block's turn asks for a piece of the next panel, whose lines follow each other in `lines`.
pub(crate) fn panel_by_panel(
    rows: usize,
    panels: usize,
    lines: &[Line],
) -> impl Iterator<Item = (usize, usize)> {
    let panel_lines = lines.len() / panels.max(1);
    let piece = panel_lines.div_ceil(rows.div_ceil(BLOCK).max(1));
    let pairs = (0..panels).flat_map(move |panel| (0..rows).step_by(BLOCK).map(move |first| (first, panel)));
    pairs.inspect(move |(first, panel)| {
        let start = ((panel + 1) * panel_lines + first / BLOCK * piece).min(lines.len());
        crate::simd::prefetch(&lines[start..lines.len().min(start + piece)]);
    })
}

/// Makes blocks of products on one thread; holds the processor's tiles for that long. It stays on its thread, and one
/// lives on a thread at a time, since the end of one takes the tiles from all.
pub(crate) struct Multiplier {
    path: Path,
    /// Neither `Send` nor `Sync`: another thread's tiles are not ready.
    stays: PhantomData<*const ()>,
}

#[cfg(target_arch = "x86_64")]
thread_local! {
    /// Whether a multiplier has this thread's tiles.
    static BUSY: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// By which instructions a block is made.
///
/// Only [`Path::of`] and [`Path::available`] make other values than `Plain`, so holding one is proof that this
/// processor has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// The definition.
    #[cfg_attr(target_arch = "aarch64", allow(dead_code))] // tests hold the others to it
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "aarch64")]
    NeonDot,
}

impl Path {
    /// The best of an instruction set.
    fn of(isa: Isa) -> Self {
        #[cfg(target_arch = "x86_64")]
        return match isa {
            Isa::Portable => Self::Plain,
            // Only where it is the best there is: on other processors this set stands for those that have no VNNI.
            Isa::Avx2 if isa == Isa::detect() && is_x86_feature_detected!("avxvnni") => Self::AvxVnni,
            Isa::Avx2 | Isa::Avx512 => Self::Avx2,
            Isa::Avx512Vnni => Self::Avx512Vnni,
            Isa::Amx => Self::Amx,
        };
        #[cfg(not(target_arch = "x86_64"))]
        let _ = isa;
        #[cfg(target_arch = "aarch64")]
        return if std::arch::is_aarch64_feature_detected!("dotprod") { Self::NeonDot } else { Self::Neon };
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        Self::Plain
    }

    /// All that this processor has.
    #[cfg(test)]
    fn available() -> Vec<Self> {
        let mut paths = vec![Self::Plain];
        paths.extend(Isa::available().into_iter().map(Self::of));
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni") {
            paths.push(Self::AvxVnni);
        }
        #[cfg(target_arch = "aarch64")]
        paths.push(Self::Neon);
        paths.dedup();
        paths
    }
}

/// Whether products of bytes are several times as fast as those of floats.
pub(crate) fn are_fast(isa: Isa) -> bool {
    match Path::of(isa) {
        Path::Plain => false,
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => false,
        #[cfg(target_arch = "aarch64")]
        Path::Neon => false,
        #[allow(unreachable_patterns)] // where there is no other
        _ => true,
    }
}

/// What a block is made of: 32 rows of A, of which the first `count` matter, `stride` bytes apart, and a panel of B, of
/// whose groups the first `groups` are not all padding.
#[derive(Clone, Copy)]
struct Operands<'a> {
    rows: &'a [u8],
    stride: usize,
    count: usize,
    panel: &'a [Line],
    groups: usize,
}

impl<'a> Operands<'a> {
    /// The rows from `first` on.
    fn below(self, first: usize) -> Self {
        Self { rows: &self.rows[first * self.stride..], count: self.count - first, ..self }
    }

    /// Where the codes of a group begin, of columns from `column` on.
    fn columns(self, group: usize, column: usize) -> *const u8 {
        self.panel.as_ptr().cast::<u8>().wrapping_add(group * BLOCK * 4 + column * 4)
    }

    /// Four steps of row `i`.
    ///
    /// # Safety
    /// There must be such a row, and such a group.
    unsafe fn four(self, i: usize, group: usize) -> i32 {
        // SAFETY: the caller's bounds.
        unsafe { self.rows.as_ptr().add(i * self.stride + group * 4).cast::<i32>().read_unaligned() }
    }
}

impl Multiplier {
    /// Prepares this thread.
    pub(crate) fn new(isa: Isa) -> Self {
        Self::on(Path::of(isa))
    }

    fn on(path: Path) -> Self {
        #[cfg(target_arch = "x86_64")]
        if path == Path::Amx {
            assert!(!BUSY.replace(true), "one multiplier lives on a thread at a time");
            // SAFETY: `Isa::Amx` saw AMX and got the system's leave to use it.
            unsafe { crate::tiles::configure() };
        }
        Self { path, stays: PhantomData }
    }

    /// Computes the products of `a` and `b` block by block, those of 32 rows from the first of each pair on with the
    /// panel that is its second. Calls `take` with a panel, some rows and their products, pair by pair; while that uses
    /// them, the next block is under way in the tiles, where there are tiles.
    ///
    /// # Panics
    /// If a pair names rows or a panel that are not there, or the k of `a` and `b` differ; with tiles if `take` makes a
    /// multiplier.
    pub(crate) fn stream(
        &self,
        a: &CodeRows,
        b: &CodePanels,
        pairs: impl Iterator<Item = (usize, usize)>,
        take: impl FnMut(usize, Range<usize>, &[[i32; BLOCK]]),
    ) {
        let make =
            |(first, panel): (usize, usize), out: &mut Block, meanwhile: &mut dyn FnMut(Range<usize>)| {
                self.block(a, first, b, panel, out, meanwhile);
            };
        overlap(a.rows, pairs, make, take);
    }

    /// Computes the products of the 32 rows of `a` from `first` on with the 32 columns of panel `panel`, and calls
    /// `meanwhile` with pieces of 0..32.
    fn block(
        &self,
        a: &CodeRows,
        first: usize,
        b: &CodePanels,
        panel: usize,
        out: &mut Block,
        meanwhile: &mut dyn FnMut(Range<usize>),
    ) {
        assert!(a.k == b.k && first < a.rows && first.is_multiple_of(BLOCK), "rows that are there");
        let stride = a.stride();
        let operands = Operands {
            rows: &a.bytes()[first * stride..(first + BLOCK) * stride],
            stride,
            count: BLOCK.min(a.rows - first),
            panel: b.panel(panel),
            groups: b.k.div_ceil(4),
        };
        match self.path {
            Path::Plain => plain(operands, out),
            // SAFETY: `Path` saw the instructions, `on` made the tiles ready; 32 rows of `stride` bytes and a panel of
            // as many groups lie behind the slices.
            #[cfg(target_arch = "x86_64")]
            Path::Amx => return unsafe { amx::block(operands, out, meanwhile) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Path::Avx512Vnni => unsafe { x86::block_avx512_vnni(operands, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Path::AvxVnni => unsafe { x86::block_avx_vnni(operands, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => unsafe { x86::block_avx2(operands, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Path::NeonDot => unsafe { neon::block_dot(operands, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Path::Neon => unsafe { neon::block(operands, out) },
        }
        meanwhile(0..BLOCK);
    }
}

impl Drop for Multiplier {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        if self.path == Path::Amx {
            // SAFETY: as in `on`.
            unsafe { crate::tiles::release() };
            BUSY.set(false);
        }
    }
}

/// The definition.
fn plain(Operands { rows, stride, count, panel, groups }: Operands<'_>, out: &mut Block) {
    let panel = panel.as_flattened_bytes();
    for (row, sums) in rows.chunks_exact(stride.max(1)).zip(out).take(count) {
        *sums = [0; BLOCK];
        for (a, b) in row.chunks_exact(4).zip(panel.chunks_exact(BLOCK * 4)).take(groups) {
            for (sum, b) in sums.iter_mut().zip(b.chunks_exact(4)) {
                for i in 0..4 {
                    *sum += i32::from(a[i]) * i32::from(b[i] as i8);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;

    fn rows(seed: u64, m: usize, k: usize) -> (CodeRows, Vec<u8>) {
        let values: Vec<u8> = uniform(seed, m * k).iter().map(|v| ((v + 1.0) * 128.0) as u8).collect();
        let mut rows = CodeRows::default();
        rows.resize(m, k);
        for i in 0..m {
            rows.row_mut(i).copy_from_slice(&values[i * k..(i + 1) * k]);
        }
        (rows, values)
    }

    #[test]
    fn every_instruction_set_gives_the_exact_products() {
        // Rows, columns and steps around a tile, a block and a line; last, more lines than a block has rows.
        let around = [(1, 1, 1), (5, 31, 3), (12, 33, 64), (29, 32, 65), (33, 70, 130), (64, 5, 384)];
        for (m, n, k) in around.into_iter().chain([(40, 33, 2200)]) {
            let (a, values) = rows(1, m, k);
            let codes: Vec<i8> = uniform(2, n * k).iter().map(|v| (v * 128.0) as i8).collect();
            let b = CodePanels::pack(n, k, |p, j| codes[j * k + p]);
            for path in Path::available() {
                let multiplier = Multiplier::on(path);
                let pairs = (0..m).step_by(BLOCK).flat_map(|i| (0..n.div_ceil(BLOCK)).map(move |j| (i, j)));
                let mut seen = 0;
                multiplier.stream(&a, &b, pairs, |panel, rows, block| {
                    for (i, sums) in rows.zip(block) {
                        for j in panel * BLOCK..n.min((panel + 1) * BLOCK) {
                            let exact: i32 = (0..k)
                                .map(|p| i32::from(values[i * k + p]) * i32::from(codes[j * k + p]))
                                .sum();
                            assert_eq!(sums[j % BLOCK], exact, "{m} x {n} x {k} by {path:?}");
                            seen += 1;
                        }
                    }
                });
                assert_eq!(seen, m * n, "each product once, {m} x {n} x {k} by {path:?}");
            }
            for j in 0..n {
                assert_eq!(b.sums()[j], codes[j * k..(j + 1) * k].iter().map(|c| i32::from(*c)).sum::<i32>());
            }
        }
    }

    #[test]
    fn rows_that_held_more_before_lose_it() {
        let (mut a, _) = rows(3, 40, 100);
        a.resize(3, 70);
        for i in 0..3 {
            a.row_mut(i).fill(2);
        }
        let b = CodePanels::pack(1, 70, |_, _| 1);
        for path in Path::available() {
            Multiplier::on(path).stream(&a, &b, [(0, 0)].into_iter(), |_, _, block| {
                assert_eq!([block[0][0], block[1][0], block[2][0]], [140; 3], "{path:?}");
            });
        }
    }

    /// Prints how fast each path is on one thread:
    /// `cargo test --release -p thema-kernels codes -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement, not a test"]
    fn speed() {
        let (m, k) = (BLOCK, 384);
        let (a, _) = rows(1, m, k);
        let b = CodePanels::pack(BLOCK, k, |p, j| (p * j) as i8);
        for path in Path::available() {
            let multiplier = Multiplier::on(path);
            let (started, mut fastest) = (std::time::Instant::now(), f64::INFINITY);
            while started.elapsed().as_secs_f64() < 0.3 {
                let start = std::time::Instant::now();
                multiplier.stream(&a, &b, [(0, 0); 10].into_iter(), |_, _, block| {
                    std::hint::black_box(block);
                });
                fastest = fastest.min(start.elapsed().as_secs_f64());
            }
            println!("{path:?}: {:.0} G/s", 2.0 * 10.0 * (m * BLOCK * k) as f64 / fastest / 1e9);
        }
    }
}
