// Where tiles are: positions count photos, pixels count from the top of the first line.

export const HEAD_HEIGHT = 36; // pixels of the heading of a section

// The places of the photos of a view, in lines of equal height below the headings of sections.
export class Layout {
  // `sections`: start and end of each; none: one without a heading. `total`: photos. `width` and `lineHeight` are a tile's.
  constructor(sections, total, columns, width, lineHeight) {
    Object.assign(this, { columns, width, lineHeight });
    const head = sections.length ? HEAD_HEIGHT : 0;
    let top = 0;
    this.blocks = (sections.length ? sections : [{ start: 0, end: total }]).map(({ start, end }) => {
      const block = { start, end, head: top, top: top + head };
      top = block.top + Math.ceil((end - start) / columns) * lineHeight;
      return block;
    });
    this.height = top;
  }

  // The last block for which a key is not above a value; blocks are in the order of every key.
  find(key, value) {
    let low = 0, high = this.blocks.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.blocks[middle][key] <= value) low = middle;
      else high = middle;
    }
    return low;
  }

  // Left edge and top of a tile, in pixels.
  placeOf(position) {
    const { start, top } = this.blocks[this.find("start", position)], index = position - start;
    return [(index % this.columns) * this.width, top + Math.floor(index / this.columns) * this.lineHeight];
  }

  // Positions whose lines are at least in part between two heights: the first one, and the one after the last.
  between(top, bottom) {
    const first = this.blocks[this.find("head", top)], last = this.blocks[this.find("head", bottom)];
    const lines = (block, height) => Math.max(0, Math.floor((height - block.top) / this.lineHeight));
    return [
      Math.min(first.end, first.start + lines(first, top) * this.columns),
      bottom < last.top ? last.start : Math.min(last.end, last.start + (lines(last, bottom) + 1) * this.columns),
    ];
  }

  // The position one line above (-1) or below (1), in the same column if there is one.
  neighbour(position, step) {
    const number = this.find("start", position), block = this.blocks[number];
    const column = (position - block.start) % this.columns, target = position + step * this.columns;
    if (target >= block.start && target < block.end) return target;
    if (step > 0 && position - column + this.columns < block.end) return block.end - 1; // in the last, shorter line
    const next = this.blocks[number + step];
    if (!next) return position;
    const line = step > 0 ? next.start : next.end - 1 - ((next.end - 1 - next.start) % this.columns);
    return Math.min(line + column, next.end - 1);
  }
}
