// Topic names on the map: larger topics first, each where nothing covers it; zooming in makes room for more.

/** Shifts that are tried in turn, in widths and heights of the label. */
const SHIFTS = [[0, 0], [0, -0.7], [0, 0.7], [0.4, 0], [-0.4, 0]];
const LINE_LETTERS = 20;
const MAX_LINES = 3;
const FADE_MS = 160;
/** Share of the text colour in a label, the rest being the topic's; the picture has the same. */
const LABEL_INK = 0.6;

class Labels {
  constructor(canvas, data, state) {
    Object.assign(this, { canvas, data, state, context: canvas.getContext("2d") });
    const members = (topic) => topic.size + topic.labelled;
    const most = Math.max(...data.report.topics.map(members), 1);
    this.labels = data.report.topics.map((topic, place) => ({
      place,
      at: topic.place,
      lines: breakIntoLines(topic.name),
      size: clamp(17 * (members(topic) / most) ** 0.25, 10.5, 17),
      rank: members(topic),
      alpha: 0,
      box: null,
    }));
    this.labels.sort((a, b) => b.rank - a.rank || a.place - b.place);
    this.key = "";
  }

  /** Takes the colours of the theme: a label has the hue of its topic and nearly the darkness of text. */
  setColours(topics, ink) {
    for (const label of this.labels) {
      const mixed = topics[label.place].map((channel, i) => Math.round(LABEL_INK * ink[i] + (1 - LABEL_INK) * channel));
      label.colour = `rgb(${mixed.slice(0, 3).join(" ")})`;
    }
  }

  /** Draws the labels and rings around points; returns whether some are still fading. */
  draw(camera, ratio, rings, elapsedMs) {
    const { context, canvas } = this;
    this.arrange(camera);
    const style = getComputedStyle(document.documentElement);
    const [paper, ink] = [style.getPropertyValue("--paper"), style.getPropertyValue("--ink")];
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, canvas.width / ratio, canvas.height / ratio);
    context.lineJoin = "round";
    for (const { row, radius } of rings) {
      const [x, y] = camera.toPixel(this.data.x[row] / 65535, this.data.y[row] / 65535);
      for (const [colour, width] of [[paper, 5], [ink, 2]]) {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.beginPath();
        context.arc(x, y, radius, 0, 2 * Math.PI);
        context.stroke();
      }
    }
    context.textAlign = "center";
    context.textBaseline = "middle";
    let fading = false;
    for (const label of this.labels) {
      const wanted = label.offset ? this.opacity(label) : 0;
      const step = calm.matches ? 1 : elapsedMs / FADE_MS;
      label.alpha += clamp(wanted - label.alpha, -step, step);
      fading ||= Math.abs(wanted - label.alpha) > 0.01;
      label.box = null;
      if (label.alpha <= 0.01 || !label.lastOffset) continue;
      const [x, y] = camera.toPixel(...label.at);
      const [dx, dy] = label.lastOffset;
      const box = { left: x + dx - label.width / 2, top: y + dy - label.height / 2, width: label.width, height: label.height };
      if (box.left > camera.width || box.top > camera.height || box.left + box.width < 0 || box.top + box.height < 0) continue;
      if (wanted > 0.5) label.box = box;
      context.font = this.font(label);
      label.lines.forEach((line, i) => {
        const middle = box.top + (i + 0.5) * this.lineHeight(label);
        context.globalAlpha = label.alpha * 0.85;
        context.strokeStyle = paper;
        context.lineWidth = 4.5;
        context.strokeText(line, x + dx, middle);
        context.globalAlpha = label.alpha;
        context.fillStyle = label.colour;
        context.fillText(line, x + dx, middle);
      });
    }
    context.globalAlpha = 1;
    return fading;
  }

  /** The topic whose label is under a pixel, or -1. */
  topicAt(px, py) {
    const under = ({ box }) => box && px >= box.left && py >= box.top && px <= box.left + box.width && py <= box.top + box.height;
    return this.labels.find(under)?.place ?? -1;
  }

  /** The names now to be read on the map. */
  shown() { return this.labels.filter((label) => label.box).map((label) => label.place); }

  /** A topic without a point in focus needs no name. */
  opacity(label) { return this.state.focusedCounts[label.place] > 0 ? 1 : 0; }

  /** Gives each label its offset for this scale; independent of panning, so that labels stay while the map moves. */
  arrange(camera) {
    const key = `${camera.scale} ${camera.width} ${this.state.version}`;
    if (key === this.key) return;
    this.key = key;
    const room = clamp(camera.width / 800, 0.8, 1);
    this.grow = room * clamp(1 + 0.12 * Math.log2(Math.max(camera.zoom, 0.5)), 0.85, 1.4);
    const taken = [];
    // A topic alone is to be seen itself, so its name stands above.
    const shifts = this.state.isolated.size === 1 ? [[0, -1.1]] : SHIFTS;
    for (const label of this.labels) {
      label.offset = null;
      if (this.opacity(label) === 0) continue;
      this.measure(label);
      const [x, y] = [label.at[0] * camera.scale, -label.at[1] * camera.scale];
      for (const [sx, sy] of shifts) {
        const [dx, dy] = [sx * label.width, sy * label.height];
        const box = {
          left: x + dx - label.width / 2 - 4, right: x + dx + label.width / 2 + 4,
          top: y + dy - label.height / 2 - 2, bottom: y + dy + label.height / 2 + 2,
        };
        const covers = (other) => box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom;
        if (taken.some(covers)) continue;
        taken.push(box);
        label.offset = label.lastOffset = [dx, dy];
        break;
      }
    }
  }

  measure(label) {
    this.context.font = this.font(label);
    label.width = Math.max(...label.lines.map((line) => this.context.measureText(line).width), 1);
    label.height = label.lines.length * this.lineHeight(label);
  }

  font(label) { return `600 ${(label.size * this.grow).toFixed(1)}px Inter, ui-sans-serif, system-ui, sans-serif`; }
  lineHeight(label) { return 1.18 * label.size * this.grow; }
}

/** Breaks a name into at most three lines of similar length. */
function breakIntoLines(name) {
  const wanted = clamp(Math.ceil(name.length / LINE_LETTERS), 1, MAX_LINES);
  const length = clamp(Math.ceil(name.length / wanted), 10, LINE_LETTERS);
  const lines = [];
  // A separator stays with the word before it, and is not needed where a line ends.
  for (const word of name.replace(/\s+([·|,;/–—-])\s+/g, "\u00a0$1 ").split(/[^\S\u00a0]+/).filter(Boolean)) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= length * 1.34) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word.length > 2 * LINE_LETTERS ? `${word.slice(0, 2 * LINE_LETTERS - 1)}…` : word);
  }
  const kept = lines.slice(0, MAX_LINES).map((line, i) => (i < lines.length - 1 ? line.replace(/\s*[·|]$/, "") : line));
  if (lines.length > MAX_LINES) kept[MAX_LINES - 1] += "…";
  return kept;
}
