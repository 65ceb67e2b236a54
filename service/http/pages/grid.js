// Draws a picture as the model sees it: resized, cut into patches, squashed or cropped where the strategy does that.
// Takes sizes and grids as `/plan` and `/embed` give them, and computes none.

const FINE_CELL = 6;
const TILE_GAP = 6;

// Draws `option` of the picture whose thumbnail is `thumb` (null: cells without a picture) into `canvas`, which becomes
// at most `width` by `height` CSS pixels. Lines are whole pixels of the screen. Without an option, the bare picture.
export function draw(canvas, thumb, option, { width, height }) {
  const ratio = window.devicePixelRatio || 1;
  const room = { width: width * ratio, height: height * ratio };
  const pen = canvas.getContext("2d");
  const colours = coloursOf(canvas);
  if (!option?.grid) {
    if (thumb) drawBare(canvas, pen, thumb, room);
  } else if (option.segments > 1) {
    drawTiles(canvas, pen, thumb, option, room, colours);
  } else {
    const cell = cellOf(option.grid, room);
    resize(canvas, option.grid[1] * cell, option.grid[0] * cell);
    if (thumb) pen.drawImage(seen(thumb, shownPart(thumb, option), option.resized), 0, 0, canvas.width, canvas.height);
    else fill(pen, colours, 0, 0, canvas.width, canvas.height);
    drawLines(pen, option.grid, cell, 0, 0, colours);
  }
  // Patches of very long grids are drawn larger than there is room for.
  const scale = Math.min(1, room.width / canvas.width, room.height / canvas.height) / ratio;
  canvas.style.width = `${Math.max(1, canvas.width * scale)}px`;
  canvas.style.height = `${Math.max(1, canvas.height * scale)}px`;
}

function coloursOf(canvas) {
  const style = getComputedStyle(canvas);
  return { line: style.getPropertyValue("--gap"), empty: style.getPropertyValue("--empty") };
}

// The side of a drawn patch, in pixels of the screen. Very long grids have at least 2.
function cellOf([rows, columns], room) {
  return Math.max(2, Math.floor(Math.min(room.width / columns, room.height / rows)));
}

function resize(canvas, width, height) {
  canvas.width = width;
  canvas.height = height;
}

function drawBare(canvas, pen, thumb, room) {
  const scale = Math.min(room.width / thumb.width, room.height / thumb.height);
  resize(canvas, Math.max(1, Math.round(thumb.width * scale)), Math.max(1, Math.round(thumb.height * scale)));
  pen.drawImage(thumb, 0, 0, canvas.width, canvas.height);
}

// The part of the picture that is not cropped away: a square in the middle where the aspect ratio is kept.
function shownPart(thumb, { shown = 1, stretch = 1 }) {
  let { width, height } = thumb;
  if (shown < 1 && stretch < 1.01) width = height = Math.sqrt(shown * width * height);
  else [width, height] = [width * Math.sqrt(shown), height * Math.sqrt(shown)];
  return { x: (thumb.width - width) / 2, y: (thumb.height - height) / 2, width, height };
}

// The picture at the number of pixels that the model gets. Where the thumbnail has fewer, as it is.
function seen(thumb, part, [height, width]) {
  const small = new OffscreenCanvas(Math.max(1, Math.min(width, 2048)), Math.max(1, Math.min(height, 2048)));
  const pen = small.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(thumb, part.x, part.y, part.width, part.height, 0, 0, small.width, small.height);
  return small;
}

function fill(pen, colours, x, y, width, height) {
  pen.fillStyle = colours.empty;
  pen.fillRect(x, y, width, height);
}

// Between patches, in the colour of the page: the picture looks cut.
function drawLines(pen, [rows, columns], cell, x, y, colours) {
  pen.fillStyle = colours.line;
  pen.globalAlpha = cell >= FINE_CELL ? 1 : 0.45;
  for (let column = 1; column < columns; column++) pen.fillRect(x + column * cell, y, 1, rows * cell);
  for (let row = 1; row < rows; row++) pen.fillRect(x, y + row * cell, columns * cell, 1);
  pen.globalAlpha = 1;
}

// AnyRes: the whole picture squashed to one tile, then the tiles, over which the picture lies in the middle, its shape
// kept. What it does not cover is computed all the same, and is drawn empty.
function drawTiles(canvas, pen, thumb, { grid, resized, segments }, room, colours) {
  const tileSide = Math.sqrt((resized[0] * resized[1]) / (segments - 1));
  const [rows, columns] = resized.map((side) => Math.round(side / tileSide));
  const gap = TILE_GAP * (window.devicePixelRatio || 1);
  const gaps = { width: gap * (columns + 1), height: gap * (rows - 1) };
  const cell = cellOf([rows * grid[0], (columns + 1) * grid[1]], {
    width: room.width - gaps.width, height: room.height - gaps.height,
  });
  const tile = { width: grid[1] * cell, height: grid[0] * cell };
  resize(canvas, (columns + 1) * tile.width + gaps.width, rows * tile.height + gaps.height);
  const tilesX = tile.width + 2 * gap;
  if (thumb) pen.drawImage(thumb, 0, 0, tile.width, tile.height);
  else fill(pen, colours, 0, 0, tile.width, tile.height);
  drawLines(pen, grid, cell, 0, 0, colours);

  const whole = thumb && seen(thumb, shownPart(thumb, {}), fitted(thumb, resized));
  const scale = thumb && Math.min((columns * tile.width) / whole.width, (rows * tile.height) / whole.height);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const x = tilesX + column * (tile.width + gap);
      const y = row * (tile.height + gap);
      fill(pen, colours, x, y, tile.width, tile.height);
      if (thumb) {
        pen.save();
        pen.beginPath();
        pen.rect(x, y, tile.width, tile.height);
        pen.clip();
        const left = (columns * tile.width - whole.width * scale) / 2 - column * tile.width;
        const above = (rows * tile.height - whole.height * scale) / 2 - row * tile.height;
        pen.drawImage(whole, x + left, y + above, whole.width * scale, whole.height * scale);
        pen.restore();
      }
      drawLines(pen, grid, cell, x, y, colours);
    }
  }
}

// For drawing alone: the picture's shape within the tiles.
function fitted(thumb, [height, width]) {
  const scale = Math.min(width / thumb.width, height / thumb.height);
  return [Math.round(thumb.height * scale), Math.round(thumb.width * scale)];
}
