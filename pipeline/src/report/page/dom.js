// Small things every part uses: elements, numbers and dates as text.

const byId = (id) => document.getElementById(id);

/** Makes an element; text is always set as text, never as markup. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "onclick") made.addEventListener("click", value);
    else if (name.startsWith("--")) made.style.setProperty(name, value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Text that reads in its own direction, whatever script it is in. */
const ownDirection = (tag, text, attributes = {}) => element(tag, { dir: "auto", ...attributes }, text);

function svgElement(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const counts = new Intl.NumberFormat("en");
const count = (n) => counts.format(n);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

const DAY_MS = 86_400_000;
const dayFormat = new Intl.DateTimeFormat("en", { day: "numeric", month: "long", year: "numeric", timeZone: "UTC" });
const monthFormat = new Intl.DateTimeFormat("en", { month: "short", year: "numeric", timeZone: "UTC" });
const dayText = (day) => dayFormat.format(day * DAY_MS);
const monthText = (day) => monthFormat.format(day * DAY_MS);

const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** The words of a topic as chips; the underline is as long as the word's weight over the largest. */
function chips(topic, most) {
  const words = topic.words.slice(0, most);
  const largest = Math.max(...words.map(([, weight]) => weight), 1e-9);
  return element("ul", { class: "chips" }, ...words.map(([word, weight]) =>
    element("li", { dir: "auto", title: `weight ${weight.toPrecision(3)}`, "--weight": `${100 * clamp(weight / largest, 0, 1)}%` }, word)));
}

/** The text with every occurrence of one of the words marked. */
function marked(text, words) {
  const pattern = words.map((word) => word.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")).join("|");
  if (!pattern) return [text];
  return text.split(new RegExp(`(${pattern})`, "giu")).map((piece, i) => (i % 2 ? element("mark", {}, piece) : piece));
}
