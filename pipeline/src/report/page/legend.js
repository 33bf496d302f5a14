// The list of topics beside the map, as a tree where the topics have a taxonomy, and the filters above it.

class Legend {
  constructor(data, state, map) {
    Object.assign(this, { data, state, map, rows: [], groups: [] });
    this.list = byId("legend");
    const { topics } = data.report;
    const order = topics.map((_, place) => place).sort((a, b) => members(topics[b]) - members(topics[a]) || a - b);
    this.fill(this.list, treeOf(topics, order));
    byId("release").addEventListener("click", () => state.set({ isolated: new Set() }));

    const labelled = data.part.includes(1);
    const parts = byId("parts");
    parts.hidden = !(labelled && data.part.includes(0));
    for (const button of parts.children) button.addEventListener("click", () => state.set({ part: button.dataset.part }));
    byId("outliers").addEventListener("change", (event) => state.set({ outliers: event.target.checked }));
    this.outliers = data.topic.reduce((sum, topic) => sum + (topic === NO_TOPIC), 0);
    byId("outliers-switch").hidden = this.outliers === 0;

    state.onChange(() => this.update());
    this.update();
  }

  fill(list, node) {
    for (const child of node.children.values()) list.append(this.group(child));
    for (const place of node.topics) list.append(this.row(place));
  }

  row(place) {
    const { state, data } = this;
    const topic = data.report.topics[place];
    const number = element("span", { class: "count" });
    const toggle = (event) => {
      state.toggleTopic(place, event.shiftKey || event.ctrlKey || event.metaKey);
      if (state.isolated.has(place)) this.map.reveal(place);
    };
    const button = element("button", { class: "row", "aria-pressed": "false", "data-topic": topic.id, title: topic.name, onclick: toggle },
      element("span", { class: "swatch" }), ownDirection("span", topic.name, { class: "name" }), number);
    const item = element("li", {}, button);
    this.rows.push({ place, topic, item, button, number, about: null });
    return item;
  }

  group(node) {
    const places = placesOf(node);
    const inner = element("ul");
    this.fill(inner, node);
    const arrow = svgElement("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, svgElement("path", { d: "m4 2 4 4-4 4" }));
    const fold = element("button", { class: "fold", "aria-expanded": "true", "aria-label": `Topics of ${node.name}` }, arrow);
    fold.addEventListener("click", () => {
      inner.hidden = !inner.hidden;
      fold.setAttribute("aria-expanded", String(!inner.hidden));
    });
    const button = element("button", { class: "group", "aria-pressed": "false", dir: "auto", onclick: () => this.state.toggleTopics(places) }, node.name);
    this.groups.push({ places, button });
    return element("li", {}, element("div", { class: "group-row" }, fold, button), inner);
  }

  update() {
    const { state, data } = this;
    const { isolated } = state;
    const theme = document.documentElement.dataset.theme;
    this.list.classList.toggle("focused", isolated.size > 0);
    for (const row of this.rows) {
      const chosen = isolated.has(row.place);
      row.button.setAttribute("aria-pressed", String(chosen));
      row.button.firstChild.style.setProperty("--swatch", row.topic[theme]);
      row.number.textContent = count(state.topicCounts[row.place]);
      const open = chosen && isolated.size === 1;
      if (open && !row.about) row.item.append((row.about = this.about(row.topic)));
      if (row.about) row.about.hidden = !open;
      row.about?.style.setProperty("--swatch", row.topic[theme]);
    }
    for (const { places, button } of this.groups) {
      const chosen = places.length === isolated.size && places.every((place) => isolated.has(place));
      button.setAttribute("aria-pressed", String(chosen));
    }
    for (const button of byId("parts").children) button.setAttribute("aria-pressed", String(button.dataset.part === state.part));
    const topics = data.report.topics.length;
    byId("legend-heading").textContent = isolated.size > 0 ? `${isolated.size} of ${count(topics)} topics` : `${count(topics)} topics`;
    byId("outlier-count").textContent = count(this.outliers);
    byId("release").hidden = isolated.size === 0;
  }

  about(topic) {
    const texts = topic.representatives.slice(0, 3).map((text) => ownDirection("li", text));
    return element("div", { class: "about" }, chips(topic, 8),
      ...(texts.length ? [element("h3", {}, `Typical ${this.data.report.noun}`), element("ol", {}, ...texts)] : []));
  }
}

const members = (topic) => topic.size + topic.labelled;

/** Sorts topics into the tree of their paths. */
function treeOf(topics, order) {
  const node = (name) => ({ name, children: new Map(), topics: [] });
  const root = node("");
  for (const place of order) {
    let at = root;
    for (const name of topics[place].path) {
      if (!at.children.has(name)) at.children.set(name, node(name));
      at = at.children.get(name);
    }
    at.topics.push(place);
  }
  return root;
}

const placesOf = (node) => [...node.topics, ...[...node.children.values()].flatMap(placesOf)];
