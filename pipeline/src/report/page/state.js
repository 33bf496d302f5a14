// What is chosen: isolated topics, search hits, filters. Each change gives every point one of four levels and tells the others.

const HIDDEN = 0;
const FAINT = 1;
const SHOWN = 2;
const HIT = 3;

class State {
  constructor(data) {
    this.data = data;
    this.isolated = new Set();
    this.hits = null;
    this.part = "all";
    this.outliers = true;
    this.days = null;
    this.pinned = -1;
    this.levels = new Uint8Array(data.rows);
    this.topicCounts = new Uint32Array(data.report.topics.length);
    this.focusedCounts = new Uint32Array(data.report.topics.length);
    this.listeners = [];
    this.version = 0;
    this.compute();
  }

  onChange(listener) { this.listeners.push(listener); }

  /** Changes some fields and brings everything up to date. */
  set(changes) {
    Object.assign(this, changes);
    this.compute();
    for (const listener of this.listeners) listener(this);
  }

  /** Isolates a topic, or releases it; with `add`, beside those already isolated. */
  toggleTopic(place, add = false) {
    const alone = this.isolated.has(place) && (add || this.isolated.size === 1);
    const isolated = new Set(add ? this.isolated : []);
    if (alone) isolated.delete(place);
    else isolated.add(place);
    this.set({ isolated });
  }

  /** Isolates exactly these topics, or releases them if they are. */
  toggleTopics(places) {
    const same = places.length === this.isolated.size && places.every((place) => this.isolated.has(place));
    this.set({ isolated: new Set(same ? [] : places) });
  }

  /** Whether a row passes the filters, time aside. */
  passes(row) {
    if (!this.outliers && this.data.topic[row] === NO_TOPIC) return false;
    return this.part === "all" || (this.data.part[row] === 1) === (this.part === "labelled");
  }

  inTime(row) {
    if (!this.days) return true;
    const day = this.data.day[row];
    return day !== NO_DAY && day >= this.days[0] && day <= this.days[1];
  }

  inFocus(row) {
    if (this.isolated.size > 0 && !this.isolated.has(this.data.topic[row])) return false;
    return this.hits === null || this.hits[row] === 1;
  }

  compute() {
    const { data, levels, topicCounts, focusedCounts } = this;
    topicCounts.fill(0);
    focusedCounts.fill(0);
    this.focused = 0;
    for (let row = 0; row < data.rows; row++) {
      if (!this.passes(row) || !this.inTime(row)) {
        levels[row] = HIDDEN;
        continue;
      }
      const topic = data.topic[row];
      const focused = this.inFocus(row);
      levels[row] = !focused ? FAINT : this.hits ? HIT : SHOWN;
      if (focused) this.focused++;
      if (topic === NO_TOPIC) continue;
      topicCounts[topic]++;
      if (focused) focusedCounts[topic]++;
    }
    this.version++;
  }
}
