// The view: which part of the unit square of the points is seen, and how large.

class Camera {
  constructor(view) {
    this.view = view;
    this.width = this.height = 1;
    Object.assign(this, this.fitting());
  }

  /** Takes a new size; while everything is seen, everything stays in view. */
  resize(width, height) {
    const fitted = this.isFitted();
    const { zoom } = this;
    this.width = Math.max(width, 1);
    this.height = Math.max(height, 1);
    if (fitted) Object.assign(this, this.fitting());
    else this.scale = zoom * this.fitting().scale;
  }

  /** How much larger than at the first view. */
  get zoom() { return this.scale / this.fitting().scale; }

  /** The view that shows the bulk of the points with some room around. */
  fitting() { return this.around(this.view, 44); }

  /** The view that shows `[left, bottom, right, top]` with some pixels left free at each side, for the labels there. */
  around([left, bottom, right, top], free) {
    const width = Math.max(this.width - 2 * free, 1);
    const height = Math.max(this.height - 2 * free, 1);
    const scale = Math.min(width / Math.max(right - left, 1e-4), height / Math.max(top - bottom, 1e-4));
    return { x: (left + right) / 2, y: (bottom + top) / 2, scale };
  }

  isFitted() {
    const { x, y, scale } = this.fitting();
    return Math.abs(this.x - x) < 1e-9 && Math.abs(this.y - y) < 1e-9 && Math.abs(this.scale / scale - 1) < 1e-9;
  }

  /** Moves the picture by pixels; the middle stays over the points. */
  pan(dx, dy) {
    this.x = clamp(this.x - dx / this.scale, 0, 1);
    this.y = clamp(this.y + dy / this.scale, 0, 1);
  }

  /** Zooms and keeps what is under a pixel there. */
  zoomAt(px, py, factor) {
    const [u, v] = this.toPlace(px, py);
    this.scale = this.bounded(this.scale * factor);
    this.x = clamp(u - (px - this.width / 2) / this.scale, 0, 1);
    this.y = clamp(v + (py - this.height / 2) / this.scale, 0, 1);
  }

  bounded(scale) {
    const fitted = this.fitting().scale;
    return clamp(scale, Math.min(fitted, this.around([0, 0, 1, 1], 0).scale) * 0.7, fitted * 120);
  }

  toPixel(u, v) { return [(u - this.x) * this.scale + this.width / 2, (this.y - v) * this.scale + this.height / 2]; }
  toPlace(px, py) { return [this.x + (px - this.width / 2) / this.scale, this.y - (py - this.height / 2) / this.scale]; }
}
