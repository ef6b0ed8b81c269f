// Transparency, as btsrn_jax/inference/photo.py treats it.

/**
 * Gives each fully transparent pixel the colour of the nearest visible one: an enlarged
 * edge would mix what is stored there, mostly black, with its neighbours.
 *
 * Of several at the same distance the leftmost is taken, and of these the topmost.
 *
 * @param {Uint8Array} rgb - changed in place
 */
export function bleed(rgb, alpha, width, height) {
  const hidden = (i) => alpha[i] === 0;
  if (!alpha.some((a) => a === 0) || alpha.every((a) => a === 0)) return;
  // The row of the nearest visible pixel in the same column, or -1.
  const rows = new Int32Array(width * height).fill(-1);
  for (let x = 0; x < width; x++) {
    for (let y = 0, last = -1; y < height; y++) {
      const i = y * width + x;
      if (!hidden(i)) last = y;
      rows[i] = last;
    }
    for (let y = height - 1, next = -1; y >= 0; y--) {
      const i = y * width + x;
      if (!hidden(i)) next = y;
      if (next >= 0 && (rows[i] < 0 || next - y < y - rows[i])) rows[i] = next;
    }
  }
  const source = rgb.slice();
  const sites = new Int32Array(width);
  const starts = new Float64Array(width + 1);
  for (let y = 0; y < height; y++) {
    // The lower envelope of the parabolas (x - site)^2 + (height of site)^2.
    const tall = (x) => (rows[y * width + x] - y) ** 2;
    let count = 0;
    for (let x = 0; x < width; x++) {
      if (rows[y * width + x] < 0) continue;
      let start = -Infinity;
      while (count) {
        const site = sites[count - 1];
        start = (tall(x) + x * x - tall(site) - site * site) / (2 * (x - site));
        if (start > starts[count - 1]) break;
        count--;
        start = -Infinity;
      }
      sites[count] = x;
      starts[count++] = start;
    }
    for (let x = 0, k = 0; x < width; x++) {
      while (k + 1 < count && starts[k + 1] < x) k++;
      const i = y * width + x;
      if (!hidden(i)) continue;
      const from = rows[y * width + sites[k]] * width + sites[k];
      for (let c = 0; c < 3; c++) rgb[3 * i + c] = source[3 * from + c];
    }
  }
}

/**
 * Returns the enlarged alpha: what the network made of it, but where it is constant
 * within two pixels exactly that, since the network may be off by one there.
 *
 * @param {Uint8Array} soft - alpha as the network enlarged it
 */
export function enlarge(alpha, soft, width, height, scale) {
  const extreme = (values, better) => {
    const pass = (from, step, size, stride, count) => {
      const to = new Uint8Array(from.length);
      for (let line = 0; line < count; line++) {
        for (let i = 0; i < size; i++) {
          let best = from[line * stride + i * step];
          for (let d = -2; d <= 2; d++) {
            const j = Math.min(Math.max(i + d, 0), size - 1);
            best = better(best, from[line * stride + j * step]);
          }
          to[line * stride + i * step] = best;
        }
      }
      return to;
    };
    return pass(pass(values, 1, width, width, height), width, height, 1, width);
  };
  const least = extreme(alpha, Math.min);
  const most = extreme(alpha, Math.max);
  const large = new Uint8Array(soft);
  for (let y = 0; y < height * scale; y++) {
    for (let x = 0; x < width * scale; x++) {
      const i = Math.floor(y / scale) * width + Math.floor(x / scale);
      if (least[i] === most[i]) large[y * width * scale + x] = alpha[i];
    }
  }
  return large;
}

/** Returns the mean of three channels, rounded: of a grey picture that was enlarged. */
export function mean(rgb) {
  const grey = new Uint8Array(rgb.length / 3);
  for (let i = 0; i < grey.length; i++) {
    grey[i] = Math.floor((rgb[3 * i] + rgb[3 * i + 1] + rgb[3 * i + 2] + 1) / 3);
  }
  return grey;
}

/** Returns three equal channels. */
export function triple(grey) {
  const rgb = new Uint8Array(3 * grey.length);
  for (let i = 0; i < rgb.length; i++) rgb[i] = grey[Math.floor(i / 3)];
  return rgb;
}
