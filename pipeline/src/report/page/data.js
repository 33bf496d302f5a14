// What the page was given: the report, the columns of the points, and their texts, read from the blocks in the document.

const NO_TOPIC = 0xffff;
const NO_SCORE = 0xff;
const NO_DAY = -0x80000000;

/** The texts of one column, parsed block by block when first asked for. */
class Texts {
  constructor(name, perBlock) {
    this.blocks = [...document.querySelectorAll(`[data-texts="${name}"]`)];
    this.perBlock = perBlock;
  }

  get present() { return this.blocks.length > 0; }

  /** The text of a row. */
  at(row) { return this.block(Math.floor(row / this.perBlock))[row % this.perBlock]; }

  /** All texts of a block, as an array. */
  block(index) {
    const block = this.blocks[index];
    if (Array.isArray(block)) return block;
    const texts = JSON.parse(block.textContent);
    block.remove();
    return (this.blocks[index] = texts);
  }
}

/** Reads everything; the blocks are removed from the document so that their text is not held twice. */
function readData() {
  const report = JSON.parse(document.getElementById("report").textContent);
  const column = (name, Type) => {
    const block = document.querySelector(`[data-column="${name}"]`);
    if (!block) return null;
    const values = new Type(decodeBase64(block.textContent).buffer);
    block.remove();
    return values;
  };
  return {
    report,
    rows: report.points,
    x: column("x", Uint16Array),
    y: column("y", Uint16Array),
    topic: column("topic", Uint16Array),
    part: column("part", Uint8Array),
    score: column("score", Uint8Array),
    day: column("day", Int32Array),
    title: new Texts("title", report.block_texts),
    detail: new Texts("detail", report.block_texts),
  };
}

function decodeBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
