// Tiles: cut from a picture with their surroundings, and put into the result.
//
// The network is VALID, so a tile with `halo` real pixels around it gives the very
// pixels of the whole picture. What lies outside of the picture is mirrored.

/** Returns the index that SYMMETRIC padding shows at position i: the edge is repeated. */
export function mirror(i, size) {
  const j = ((i % (2 * size)) + 2 * size) % (2 * size);
  return j < size ? j : 2 * size - 1 - j;
}

/** Returns the corners [x, y] of all tiles, row by row. */
export function corners(width, height, tile) {
  const found = [];
  for (let y = 0; y < height; y += tile) {
    for (let x = 0; x < width; x += tile) found.push([x, y]);
  }
  return found;
}

/**
 * Returns a tile and its halo as planes of red, green and blue, in [0, 1].
 *
 * @param {{width, height, data}} image - data: RGB bytes, row by row
 */
export function cut(image, x, y, tile, halo) {
  const side = tile + 2 * halo;
  const plane = side * side;
  const values = new Float32Array(3 * plane);
  const columns = Array.from({ length: side }, (_, i) =>
    mirror(x - halo + i, image.width),
  );
  for (let row = 0; row < side; row++) {
    const start = mirror(y - halo + row, image.height) * image.width;
    for (let i = 0; i < side; i++) {
      const from = 3 * (start + columns[i]);
      const to = row * side + i;
      values[to] = image.data[from] / 255;
      values[plane + to] = image.data[from + 1] / 255;
      values[2 * plane + to] = image.data[from + 2] / 255;
    }
  }
  return values;
}

/** Returns the bytes of values in [0, 1], rounded as btsrn upscale rounds them. */
export function toBytes(values) {
  const bytes = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) {
    bytes[i] = Math.floor(Math.min(Math.max(values[i], 0), 1) * 255 + 0.5);
  }
  return bytes;
}

/** Writes the planes of an enlarged tile, as bytes, to (x, y) of the result. */
export function put(result, bytes, x, y, side) {
  const plane = side * side;
  const width = Math.min(side, result.width - x);
  const height = Math.min(side, result.height - y);
  for (let row = 0; row < height; row++) {
    let to = 3 * ((y + row) * result.width + x);
    let from = row * side;
    for (let i = 0; i < width; i++, from++) {
      result.data[to++] = bytes[from];
      result.data[to++] = bytes[plane + from];
      result.data[to++] = bytes[2 * plane + from];
    }
  }
}
