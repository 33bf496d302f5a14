// Points without WebGL: soft discs stamped into an image, pixel by pixel. Slower by far, yet a million points still move.

/** Stamps for each fraction of a pixel a disc's middle may stand at. */
const PHASES = 4;

class CanvasPainter {
  constructor(canvas, data) {
    Object.assign(this, { canvas, data, context: canvas.getContext("2d"), stamps: new Map() });
  }

  setColours(colours) { this.colours = colours; }
  setLevels(levels) { this.levels = levels; }

  draw(camera, size, ratio, hits) {
    const { width, height } = this.canvas;
    if (this.image?.width !== width || this.image?.height !== height) this.image = this.context.createImageData(width, height);
    this.image.data.fill(0);
    for (let layer = 0; layer < (hits ? 3 : 2); layer++) this.drawLayer(layer, camera, size * ratio, ratio);
    this.context.putImageData(this.image, 0, 0);
  }

  drawLayer(layer, camera, size, ratio) {
    const { data, levels, colours, image } = this;
    const { width, height, data: pixels } = image;
    const stamps = this.stampsOf(layer === 2 ? Math.max(size * 1.7, 5) : size);
    const scale = (camera.scale * ratio) / 65535;
    const left = width / 2 - camera.x * camera.scale * ratio;
    const top = height / 2 + camera.y * camera.scale * ratio;
    for (let row = 0; row < data.rows; row++) {
      const level = levels[row];
      if (level === HIDDEN) continue;
      const topic = data.topic[row];
      const own = level === HIT ? 2 : level === FAINT || topic === NO_TOPIC ? 0 : 1;
      if (own !== layer) continue;
      const px = left + data.x[row] * scale;
      const py = top - data.y[row] * scale;
      if (!(px > -20 && py > -20 && px < width + 20 && py < height + 20)) continue;
      const x = Math.floor(px);
      const y = Math.floor(py);
      const stamp = stamps[Math.floor((py - y) * PHASES) * PHASES + Math.floor((px - x) * PHASES)];
      const [r, g, b, a] = level === FAINT ? colours.faint : topic !== NO_TOPIC ? colours.topics[topic] : level === HIT ? colours.outlierHit : colours.outlier;
      const reach = stamp.reach;
      let i = 0;
      for (let sy = y - reach; sy <= y + reach; sy++) {
        for (let sx = x - reach; sx <= x + reach; sx++, i++) {
          const cover = stamp.cover[i];
          if (cover === 0 || sx < 0 || sy < 0 || sx >= width || sy >= height) continue;
          // Over, on colours that are not multiplied by their alpha.
          const at = 4 * (sy * width + sx);
          const alpha = (cover * a) / 255;
          const under = (pixels[at + 3] / 255) * (1 - alpha);
          const sum = alpha + under;
          pixels[at] = (r * alpha + pixels[at] * under) / sum;
          pixels[at + 1] = (g * alpha + pixels[at + 1] * under) / sum;
          pixels[at + 2] = (b * alpha + pixels[at + 2] * under) / sum;
          pixels[at + 3] = 255 * sum;
        }
      }
    }
  }

  stampsOf(diameter) {
    const key = Math.round(diameter * 8);
    const known = this.stamps.get(key);
    if (known) return known;
    // A disc smaller than a pixel is fainter instead.
    const opacity = Math.min(diameter * diameter, 1);
    const radius = Math.max(diameter, 1) / 2;
    const reach = Math.ceil(radius + 1);
    const side = 2 * reach + 1;
    const made = Array.from({ length: PHASES * PHASES }, (_, phase) => {
      const x = ((phase % PHASES) + 0.5) / PHASES + reach;
      const y = (Math.floor(phase / PHASES) + 0.5) / PHASES + reach;
      const cover = new Float32Array(side * side);
      for (let i = 0; i < cover.length; i++) {
        const distance = Math.hypot((i % side) + 0.5 - x, Math.floor(i / side) + 0.5 - y);
        cover[i] = opacity * clamp(radius + 0.5 - distance, 0, 1);
      }
      return { reach, cover };
    });
    this.stamps.set(key, made);
    return made;
  }
}
