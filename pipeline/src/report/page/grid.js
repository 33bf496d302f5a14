// Finding the point under the pointer: the points sorted into the cells of a square grid, by counting.

class Grid {
  /** `x` and `y` are steps of a 16-bit coordinate. */
  constructor(x, y) {
    const rows = x.length;
    this.x = x;
    this.y = y;
    // About four points a cell were they spread evenly.
    this.bits = clamp(Math.ceil(Math.log2(Math.sqrt(rows / 4 + 1))), 3, 10);
    this.shift = 16 - this.bits;
    const cells = 1 << (2 * this.bits);
    this.starts = new Uint32Array(cells + 1);
    for (let row = 0; row < rows; row++) this.starts[this.cell(row) + 1]++;
    for (let i = 0; i < cells; i++) this.starts[i + 1] += this.starts[i];
    const next = this.starts.slice();
    this.order = new Uint32Array(rows);
    for (let row = 0; row < rows; row++) this.order[next[this.cell(row)]++] = row;
  }

  cell(row) { return ((this.y[row] >> this.shift) << this.bits) | (this.x[row] >> this.shift); }

  /** The row nearest to a place within a radius (both in the unit square) among those `accepts` likes; -1 if there is none. */
  nearest(u, v, radius, accepts) {
    const [x, y, reach] = [u * 65535, v * 65535, radius * 65535];
    const last = (1 << this.bits) - 1;
    const cellOf = (step) => clamp(Math.floor(step / (1 << this.shift)), 0, last);
    let found = -1;
    let best = reach * reach;
    for (let cy = cellOf(y - reach); cy <= cellOf(y + reach); cy++) {
      for (let cx = cellOf(x - reach); cx <= cellOf(x + reach); cx++) {
        const cell = (cy << this.bits) | cx;
        for (let i = this.starts[cell]; i < this.starts[cell + 1]; i++) {
          const row = this.order[i];
          const distance = (this.x[row] - x) ** 2 + (this.y[row] - y) ** 2;
          if (distance <= best && accepts(row)) [found, best] = [row, distance];
        }
      }
    }
    return found;
  }
}
