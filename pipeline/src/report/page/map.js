// The map itself: paints when something changed, moves with pointer, wheel and keys, and shows the card of a point.

const PICK_PX = 12;
const CLICK_PX = 4;
const FLIGHT_MS = 420;

class PointMap {
  constructor(data, state) {
    Object.assign(this, { data, state });
    this.stage = byId("map");
    this.card = byId("card");
    this.pointsLayer = byId("points-layer");
    this.painter = WebglPainter.create(this.pointsLayer, data) ?? new CanvasPainter(this.pointsLayer, data);
    this.painter.onrestored = () => this.redraw();
    this.labels = new Labels(byId("labels-layer"), data, state);
    this.grid = new Grid(data.x, data.y);
    this.camera = new Camera(data.report.view);
    this.pointers = new Map();
    this.hovered = -1;
    this.stage.setAttribute("aria-label", `${data.report.map_title ?? data.report.title}: map of ${count(data.rows)} ${data.report.noun}`);

    new ResizeObserver(() => this.resize()).observe(this.stage);
    state.onChange(() => this.update());
    this.listen();
    this.setTheme();
    this.update();
  }

  /** Reads the colours of the theme. */
  setTheme() {
    const theme = document.documentElement.dataset.theme;
    const style = getComputedStyle(document.documentElement);
    const outlier = parseColour(style.getPropertyValue("--outlier"));
    const topics = this.data.report.topics.map((topic) => parseColour(topic[theme]));
    this.labels.setColours(topics, parseColour(style.getPropertyValue("--ink")));
    this.painter.setColours({
      topics: topics.map((colour) => [...colour, 215]),
      outlier: [...outlier, 150],
      // A grey hit among faint grey points would be lost.
      outlierHit: [...parseColour(style.getPropertyValue("--ink-3")), 215],
      faint: [...outlier, theme === "dark" ? 90 : 80],
    });
    this.redraw();
  }

  update() {
    this.painter.setLevels(this.state.levels);
    const { pinned, levels } = this.state;
    if (pinned >= 0 && levels[pinned] < SHOWN) this.state.pinned = -1;
    this.showCard(this.state.pinned);
    this.note();
    this.redraw();
  }

  note() {
    const { state, data } = this;
    const { noun, topics, map_title: title } = data.report;
    const shown = state.focused === data.rows ? "" : `${count(state.focused)} of ${count(data.rows)} ${noun}`;
    const isolated = [...state.isolated];
    const name = isolated.length === 1 ? topics[isolated[0]].name : isolated.length > 1 ? `${isolated.length} topics` : title ?? "";
    byId("map-note").replaceChildren(...(name ? [ownDirection("b", name), "  "] : []), shown);
  }

  /** Diameter of a point: at the first view all points together would cover an eighth of the map. */
  pointSize() {
    const { width, height, zoom } = this.camera;
    const chosen = this.data.report.point_size ?? clamp(Math.sqrt(((width * height) / 8 / Math.max(this.data.rows, 1)) * (4 / Math.PI)), 1, 6);
    return clamp(chosen * Math.max(zoom, 0.7) ** 0.4, 0.5, Math.max(14, chosen));
  }

  resize() {
    const { clientWidth, clientHeight } = this.stage;
    if (clientWidth === 0) return;
    this.ratio = Math.min(devicePixelRatio || 1, 3);
    for (const layer of this.stage.querySelectorAll("canvas")) {
      layer.width = Math.round(clientWidth * this.ratio);
      layer.height = Math.round(clientHeight * this.ratio);
    }
    this.camera.resize(clientWidth, clientHeight);
    // At once: a cleared canvas would flash.
    this.paint(0);
  }

  redraw() {
    this.frame ??= requestAnimationFrame((now) => {
      this.frame = null;
      this.paint(Math.min(now - (this.painted ?? now), 50));
      this.painted = now;
    });
  }

  paint(elapsedMs) {
    if (!this.ratio) return;
    const { camera, ratio, state } = this;
    const size = this.pointSize();
    this.painter.draw(camera, size, ratio, state.hits !== null);
    const rings = [...new Set([state.pinned, this.hovered])].filter((row) => row >= 0).map((row) => ({ row, radius: size / 2 + 3 }));
    if (this.labels.draw(camera, ratio, rings, elapsedMs || 16)) this.redraw();
    this.placeCard();
  }

  /** Moves the view to another, smoothly. */
  fly(target) {
    cancelAnimationFrame(this.flight);
    const { x, y, scale } = this.camera;
    const from = { x, y, scale };
    const to = { ...target, scale: this.camera.bounded(target.scale) };
    const start = performance.now();
    const step = (now) => {
      const share = calm.matches ? 1 : clamp((now - start) / FLIGHT_MS, 0, 1);
      const eased = 1 - (1 - share) ** 3;
      this.camera.scale = from.scale * (to.scale / from.scale) ** eased;
      this.camera.x = from.x + (to.x - from.x) * eased;
      this.camera.y = from.y + (to.y - from.y) * eased;
      this.redraw();
      if (share < 1) this.flight = requestAnimationFrame(step);
    };
    step(start);
  }

  fit() { this.fly(this.camera.fitting()); }

  zoom(factor) {
    const { x, y, scale } = this.camera;
    this.fly({ x, y, scale: scale * factor });
  }

  /** Pins a row's card and brings it into view. */
  showRow(row) {
    const [u, v] = [this.data.x[row] / 65535, this.data.y[row] / 65535];
    this.state.set({ pinned: row });
    this.fly({ x: u, y: v, scale: Math.max(this.camera.scale, this.camera.fitting().scale * 3) });
  }

  /** Brings the label of a topic into view if it is outside. */
  reveal(place) {
    const [u, v] = this.data.report.topics[place].place;
    const [px, py] = this.camera.toPixel(u, v);
    const inside = px > 40 && py > 40 && px < this.camera.width - 40 && py < this.camera.height - 40;
    if (!inside) this.fly({ x: u, y: v, scale: this.camera.scale });
  }

  listen() {
    const { stage, pointers, camera } = this;
    const place = (event) => {
      const box = stage.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };

    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      cancelAnimationFrame(this.flight);
      stage.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, place(event));
      this.pressed = pointers.size === 1 ? place(event) : null;
    });

    stage.addEventListener("pointermove", (event) => {
      const now = place(event);
      const before = pointers.get(event.pointerId);
      if (!before) return this.hover(now);
      if (this.pressed && Math.hypot(now[0] - this.pressed[0], now[1] - this.pressed[1]) > CLICK_PX) {
        this.pressed = null;
        stage.classList.add("dragging");
        this.setHovered(-1);
      }
      if (this.pressed) return;
      if (pointers.size === 1) camera.pan(now[0] - before[0], now[1] - before[1]);
      else this.pinch(event.pointerId, before, now);
      pointers.set(event.pointerId, now);
      this.redraw();
    });

    const release = (event) => {
      if (!pointers.delete(event.pointerId)) return;
      stage.classList.remove("dragging");
      if (this.pressed && event.type === "pointerup") this.click(this.pressed, event);
      this.pressed = null;
    };
    stage.addEventListener("pointerup", release);
    stage.addEventListener("pointercancel", release);
    stage.addEventListener("pointerleave", () => this.setHovered(-1));

    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      cancelAnimationFrame(this.flight);
      // A pinch on a touch pad arrives as small steps with ctrl.
      const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
      const speed = event.ctrlKey ? 0.012 : 0.0022;
      camera.zoomAt(...place(event), Math.exp(-clamp(event.deltaY * lines, -240, 240) * speed));
      this.hover(place(event));
      this.redraw();
    }, { passive: false });

    stage.addEventListener("dblclick", (event) => {
      const [px, py] = place(event);
      const [u, v] = camera.toPlace(px, py);
      const scale = camera.bounded(camera.scale * (event.shiftKey ? 0.5 : 2));
      this.fly({ x: u - (px - camera.width / 2) / scale, y: v + (py - camera.height / 2) / scale, scale });
    });

    stage.addEventListener("keydown", (event) => {
      const step = 80;
      const keys = {
        ArrowLeft: () => camera.pan(step, 0), ArrowRight: () => camera.pan(-step, 0),
        ArrowUp: () => camera.pan(0, step), ArrowDown: () => camera.pan(0, -step),
        "+": () => this.zoom(1.6), "=": () => this.zoom(1.6), "-": () => this.zoom(1 / 1.6), "0": () => this.fit(),
      };
      if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
      this.redraw();
    });

    byId("zoom-in").addEventListener("click", () => this.zoom(1.6));
    byId("zoom-out").addEventListener("click", () => this.zoom(1 / 1.6));
    byId("zoom-fit").addEventListener("click", () => this.fit());
  }

  pinch(id, before, now) {
    const other = [...this.pointers].find(([otherId]) => otherId !== id)?.[1];
    if (!other) return;
    const span = (a, b) => Math.max(Math.hypot(a[0] - b[0], a[1] - b[1]), 10);
    this.camera.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
    this.camera.zoomAt((now[0] + other[0]) / 2, (now[1] + other[1]) / 2, span(now, other) / span(before, other));
  }

  rowAt([px, py]) {
    const { levels } = this.state;
    const [u, v] = this.camera.toPlace(px, py);
    return this.grid.nearest(u, v, PICK_PX / this.camera.scale, (row) => levels[row] >= SHOWN);
  }

  hover(at) {
    this.setHovered(this.rowAt(at));
    this.stage.classList.toggle("pointing", this.hovered >= 0 || this.labels.topicAt(...at) >= 0);
  }

  setHovered(row) {
    if (row === this.hovered) return;
    this.hovered = row;
    if (this.state.pinned < 0) this.showCard(row);
    this.redraw();
  }

  click(at, event) {
    const topic = this.labels.topicAt(...at);
    const row = this.rowAt(at);
    if (topic >= 0) this.state.toggleTopic(topic, event.shiftKey || event.ctrlKey || event.metaKey);
    else this.state.set({ pinned: row === this.state.pinned ? -1 : row });
  }

  showCard(row) {
    if (row === this.cardRow && this.card.classList.contains("pinned") === (row >= 0 && row === this.state.pinned)) return;
    this.cardRow = row;
    this.card.hidden = row < 0;
    if (row < 0) return;
    const { data, state, card } = this;
    const topic = data.report.topics[data.topic[row]];
    const pinned = row === state.pinned;
    const meta = [];
    if (data.day && data.day[row] !== NO_DAY) meta.push(dayText(data.day[row]));
    if (data.score && data.score[row] !== NO_SCORE) meta.push(`score ${(data.score[row] / 254).toFixed(2)}`);
    meta.push(data.part[row] === 1 ? "labelled" : "fitted");
    const theme = document.documentElement.dataset.theme;
    card.classList.toggle("pinned", pinned);
    card.replaceChildren(
      ownDirection("h3", data.title.at(row)),
      element("p", { class: "topic" },
        element("span", { class: "swatch", "--swatch": topic?.[theme] }),
        ownDirection("span", topic ? topic.name : "No topic (outlier)")),
      ...(data.detail.present && data.detail.at(row) ? [ownDirection("p", data.detail.at(row), { class: "detail" })] : []),
      element("p", { class: "meta" }, ...meta.map((text) => element("span", {}, text))),
      ...(pinned ? [element("p", { class: "actions" },
        topic && element("button", { class: "link", onclick: () => state.toggleTopics([data.topic[row]]) }, state.isolated.size === 1 ? "Show all topics" : "Show only this topic"),
        element("button", { class: "link", onclick: () => state.set({ pinned: -1 }) }, "Close"))] : []),
    );
    this.placeCard();
  }

  /** Keeps the card beside its point and inside the stage. */
  placeCard() {
    if (this.card.hidden || this.cardRow < 0) return;
    const [x, y] = this.camera.toPixel(this.data.x[this.cardRow] / 65535, this.data.y[this.cardRow] / 65535);
    const { offsetWidth: width, offsetHeight: height } = this.card;
    const left = x + 18 + width > this.camera.width ? x - 18 - width : x + 18;
    const top = clamp(y - 24, 12, Math.max(this.camera.height - height - 12, 12));
    this.card.style.transform = `translate(${Math.round(clamp(left, 12, Math.max(this.camera.width - width - 12, 12)))}px, ${Math.round(top)}px)`;
  }
}

function parseColour(hex) {
  const value = parseInt(hex.trim().slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}
