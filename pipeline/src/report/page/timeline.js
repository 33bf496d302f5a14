// The time filter: a histogram of dates over which one drags; dark bars are what the other choices leave.

const BINS = 96;
const TICK_PX = 110;

class Timeline {
  constructor(data, state) {
    Object.assign(this, { data, state });
    const [first, high] = data.day ? extent(data.day) : [0, 0];
    if (!(high > first)) return;
    const low = startOf(data.day, first, high);
    this.root = byId("timeline");
    this.root.hidden = false;
    Object.assign(this, { first, low, high, days: high - low + 1 });
    this.bins = Math.min(BINS, this.days);
    this.all = this.countBy(() => true);
    this.build();
    state.onChange(() => this.update());
    this.update();
  }

  build() {
    const bars = (name) => svgElement("g", { class: name }, ...Array.from({ length: this.bins }, (_, i) =>
      svgElement("rect", { x: i + 0.08, width: 0.84, y: 0, height: 0 })));
    this.bars = { all: bars("all"), some: bars("some") };
    const picture = svgElement("svg", { viewBox: `0 0 ${this.bins} 1`, preserveAspectRatio: "none", "aria-hidden": "true" }, this.bars.all, this.bars.some);
    this.range = element("div", { class: "range" });
    this.handles = ["First day", "Last day"].map((label, i) => {
      const handle = element("div", { class: "handle", role: "slider", tabindex: "0", "aria-label": label, "aria-valuemin": this.low, "aria-valuemax": this.high });
      handle.addEventListener("keydown", (event) => this.nudge(event, i));
      return handle;
    });
    this.plot = element("div", { class: "plot" }, picture, this.range, ...this.handles);
    this.periodText = element("span");
    this.period = element("p", { class: "period", role: "status" }, this.periodText, element("button", { class: "link", onclick: () => this.choose(null) }, "All dates"));
    const axis = element("div", { class: "axis", "aria-hidden": "true" });
    this.root.replaceChildren(this.plot, axis, this.period);
    new ResizeObserver(() => axis.replaceChildren(...this.ticks(axis.clientWidth))).observe(axis);
    this.drag();
  }

  /** The start, the end and as many years between as find room. */
  ticks(width) {
    const first = new Date(this.low * DAY_MS).getUTCFullYear();
    const last = new Date(this.high * DAY_MS).getUTCFullYear();
    const years = Array.from({ length: last - first }, (_, i) => first + i + 1);
    const near = (TICK_PX / Math.max(width, 1)) * this.days;
    const every = Math.max(Math.ceil(near / 365), 1);
    const start = [this.low > this.first ? `until ${monthText(this.low)}` : monthText(this.low), this.low];
    const between = years.filter((year) => year % every === 0).map((year) => [String(year), Date.UTC(year, 0) / DAY_MS])
      .filter(([, day]) => day - this.low > near && this.high - day > near);
    return [start, ...between, [monthText(this.high), this.high]].map(([text, day]) => {
      const tick = element("span", { class: day === this.low ? "start" : day === this.high ? "end" : null }, text);
      tick.style.left = `${100 * this.share(day)}%`;
      return tick;
    });
  }

  share(day) { return (day - this.low) / this.days; }

  countBy(accepts) {
    const bins = new Float64Array(this.bins);
    const { day } = this.data;
    const perBin = this.days / this.bins;
    for (let row = 0; row < day.length; row++) {
      if (day[row] !== NO_DAY && accepts(row)) bins[Math.max(Math.floor((day[row] - this.low) / perBin), 0)]++;
    }
    return bins;
  }

  update() {
    const { state } = this;
    const focus = state.isolated.size > 0 || state.hits !== null;
    const some = this.countBy((row) => state.passes(row) && state.inTime(row) && state.inFocus(row));
    const top = Math.max(...this.all, 1);
    // A small topic would vanish beside everything: its bars have their own height.
    const someTop = focus ? Math.max(...some, 1) : top;
    const set = (group, bins, most) => bins.forEach((n, i) => {
      const height = n === 0 ? 0 : Math.max(n / most, 0.02);
      group.children[i].setAttribute("height", height);
      group.children[i].setAttribute("y", 1 - height);
    });
    set(this.bars.all, this.all, top);
    set(this.bars.some, some, someTop);
    const [from, to] = this.chosen();
    const ends = [this.share(from), this.share(to + 1)];
    this.range.style.left = `${100 * ends[0]}%`;
    this.range.style.width = `${100 * (ends[1] - ends[0])}%`;
    this.range.hidden = !state.days;
    this.handles.forEach((handle, i) => {
      handle.style.left = `${100 * ends[i]}%`;
      handle.setAttribute("aria-valuenow", [from, to][i]);
      handle.setAttribute("aria-valuetext", dayText([from, to][i]));
    });
    this.root.classList.toggle("chosen", state.days !== null);
    this.period.hidden = !state.days;
    this.periodText.textContent = from === this.low && this.low > this.first ? `until ${dayText(to)}` : `${dayText(from)} – ${dayText(to)}`;
  }

  /** The chosen days within the bounds of the histogram. */
  chosen() {
    const [from, to] = this.state.days ?? [this.low, this.high];
    return [Math.max(from, this.low), to];
  }

  choose(days) {
    if (days) days = [clamp(Math.min(...days), this.low, this.high), clamp(Math.max(...days), this.low, this.high)];
    if (days && days[0] === this.low && days[1] === this.high) days = null;
    // The first bar stands for all that is older.
    if (days && days[0] === this.low) days[0] = this.first;
    this.state.set({ days });
  }

  nudge(event, end) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (!step) return;
    event.preventDefault();
    const days = this.chosen();
    const moved = days[end] + Math.round(step * Math.max(this.days / this.bins, 1));
    days[end] = end === 0 ? Math.min(moved, days[1]) : Math.max(moved, days[0]);
    this.choose(days);
  }

  drag() {
    const { plot } = this;
    const dayAt = (event) => {
      const box = plot.getBoundingClientRect();
      return Math.floor(this.low + clamp((event.clientX - box.left) / box.width, 0, 0.9999) * this.days);
    };
    let grip = null;
    plot.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      plot.setPointerCapture(event.pointerId);
      const [from, to] = this.chosen();
      const end = this.handles.indexOf(event.target);
      const day = dayAt(event);
      if (end >= 0) grip = (now) => this.choose(end === 0 ? [now, to] : [from, now]);
      else if (event.target === this.range) {
        grip = (now) => {
          const shift = clamp(now - day, this.low - from, this.high - to);
          this.choose([from + shift, to + shift]);
        };
      } else grip = (now) => this.choose([day, now]);
    });
    plot.addEventListener("pointermove", (event) => grip && !this.waiting && (this.waiting = requestAnimationFrame(() => {
      this.waiting = null;
      grip?.(dayAt(event));
    })));
    for (const end of ["pointerup", "pointercancel"]) plot.addEventListener(end, () => (grip = null));
    plot.addEventListener("dblclick", () => this.choose(null));
  }
}

/** Where the histogram starts: a few old rows shall not press all others into its last bars. */
function startOf(day, first, high) {
  const days = day.filter((value) => value !== NO_DAY).sort();
  const start = days[Math.floor(days.length / 100)];
  return start - first > (high - first) / 3 && start < high ? start : first;
}

function extent(days) {
  let [low, high] = [Infinity, -Infinity];
  for (const day of days) {
    if (day === NO_DAY) continue;
    low = Math.min(low, day);
    high = Math.max(high, day);
  }
  return [low, high];
}
