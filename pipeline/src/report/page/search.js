// Search over titles and topics: hits stand out on the map and are listed; a long search never blocks the page.

const WAIT_MS = 120;
const SLICE_MS = 10;
const LISTED = 100;

class Search {
  constructor(data, state, map) {
    Object.assign(this, { data, state, map, run: 0 });
    const { noun } = data.report;
    this.input = byId("search");
    this.input.placeholder = `Search ${noun} and topics`;
    this.input.setAttribute("aria-label", `Search ${noun} and topics`);
    this.input.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.search(), WAIT_MS);
    });
    this.input.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.input.value) return;
      event.stopPropagation();
      this.input.value = "";
      this.search();
    });
    addEventListener("keydown", (event) => {
      if (event.key !== "/" || /^(INPUT|TEXTAREA)$/.test(event.target.tagName)) return;
      event.preventDefault();
      this.input.focus();
    });
  }

  async search() {
    const run = ++this.run;
    const words = this.input.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length === 0) {
      byId("results").hidden = true;
      byId("legend-panel").hidden = false;
      if (this.state.hits) this.state.set({ hits: null });
      return;
    }
    const { data } = this;
    const matches = (text) => { const lower = text.toLowerCase(); return words.every((word) => lower.includes(word)); };
    const topics = data.report.topics.flatMap((topic, place) =>
      matches(`${topic.name} ${topic.words.map(([word]) => word).join(" ")}`) ? [place] : []);

    const hits = new Uint8Array(data.rows);
    const listed = [];
    let found = 0;
    let since = performance.now();
    for (let block = 0, row = 0; block < data.title.blocks.length; block++) {
      for (const title of data.title.block(block)) {
        if (matches(title)) {
          hits[row] = 1;
          found++;
          if (listed.length < LISTED) listed.push(row);
        }
        row++;
      }
      if (performance.now() - since > SLICE_MS) {
        await new Promise((resume) => setTimeout(resume));
        if (run !== this.run) return;
        since = performance.now();
      }
    }
    this.list(words, topics, listed, found);
    this.state.set({ hits });
  }

  list(words, topics, rows, found) {
    const { data, state, map } = this;
    const theme = document.documentElement.dataset.theme;
    const swatch = (topic) => element("span", { class: "swatch", "--swatch": topic?.[theme] });
    byId("results").hidden = false;
    byId("legend-panel").hidden = true;
    const more = found > rows.length ? `, the first ${LISTED} listed` : "";
    const topicText = topics.length === 1 ? "1 topic" : `${count(topics.length)} topics`;
    byId("results-status").textContent = `${count(found)} ${data.report.noun} and ${topicText}${more}`;
    byId("topic-hits").replaceChildren(...topics.slice(0, 8).map((place) => {
      const topic = data.report.topics[place];
      const open = () => {
        this.input.value = "";
        this.search();
        state.set({ isolated: new Set([place]) });
        map.reveal(place);
      };
      return element("li", {}, element("button", { class: "row", onclick: open }, swatch(topic),
        element("span", { class: "name", dir: "auto" }, ...marked(topic.name, words)), element("span", { class: "count" }, count(state.topicCounts[place]))));
    }));
    byId("text-hits").replaceChildren(...rows.map((row) => {
      const topic = data.report.topics[data.topic[row]];
      return element("li", {}, element("button", { onclick: () => map.showRow(row) }, swatch(topic),
        element("span", { dir: "auto" }, ...marked(data.title.at(row), words)),
        ownDirection("small", topic ? topic.name : "No topic")));
    }));
  }
}
