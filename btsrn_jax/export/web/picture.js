// Picture files: read by the browser, upright and in sRGB; written as PNG by ourselves,
// since a canvas mixes colours with transparency and ends at some size.

const BLOCK = 2048; // pixels a side that are read at once: textures end at 4096

/** Something to tell the person, in a sentence. */
export class Problem extends Error {}

/**
 * Reads a picture.
 *
 * @param {Blob} file
 * @returns {{width, height, data, alpha, grey}} - data: RGB bytes; alpha: bytes, or null
 *   where all is opaque; grey: whether the file has one channel of colour
 */
export async function read(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      premultiplyAlpha: "none",
      imageOrientation: "from-image",
    });
  } catch {
    throw new Problem(
      `${file.name ?? "This file"} is no picture that this browser can read: PNG, JPEG, ` +
        "WebP, BMP, GIF or AVIF is expected.",
    );
  }
  const { width, height } = bitmap;
  let { rgb, alpha } = await pixels(bitmap, plainReader());
  if (alpha.some((a) => a !== 255)) {
    ({ rgb, alpha } = await pixels(bitmap, exactReader() ?? plainReader()));
  } else {
    alpha = null;
  }
  bitmap.close();
  const head = new Uint8Array(await file.slice(0, 1 << 18).arrayBuffer());
  return { width, height, data: rgb, alpha, grey: isGrey(head) };
}

/** Returns the bytes of a bitmap, block by block. */
async function pixels(bitmap, reader) {
  const { width, height } = bitmap;
  const rgb = new Uint8Array(3 * width * height);
  const alpha = new Uint8Array(width * height);
  for (let top = 0; top < height; top += BLOCK) {
    for (let left = 0; left < width; left += BLOCK) {
      const w = Math.min(BLOCK, width - left);
      const h = Math.min(BLOCK, height - top);
      const block = await createImageBitmap(bitmap, left, top, w, h, {
        premultiplyAlpha: "none",
      });
      const rgba = reader(block, w, h);
      block.close();
      for (let y = 0; y < h; y++) {
        for (let x = 0; x < w; x++) {
          const from = 4 * (y * w + x);
          const to = (top + y) * width + left + x;
          rgb[3 * to] = rgba[from];
          rgb[3 * to + 1] = rgba[from + 1];
          rgb[3 * to + 2] = rgba[from + 2];
          alpha[to] = rgba[from + 3];
        }
      }
    }
  }
  return { rgb, alpha };
}

/** A canvas: exact where nothing is transparent. */
function plainReader() {
  const canvas = new OffscreenCanvas(BLOCK, BLOCK);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  return (block, w, h) => {
    context.clearRect(0, 0, BLOCK, BLOCK);
    context.drawImage(block, 0, 0);
    return context.getImageData(0, 0, w, h).data;
  };
}

/** A texture: exact everywhere. Null where there is no WebGL. */
function exactReader() {
  const gl = new OffscreenCanvas(1, 1).getContext("webgl");
  if (!gl) return null;
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  return (block, w, h) => {
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, block);
    const [target, point] = [gl.TEXTURE_2D, gl.COLOR_ATTACHMENT0];
    gl.framebufferTexture2D(gl.FRAMEBUFFER, point, target, gl.getParameter(gl.TEXTURE_BINDING_2D), 0);
    const rgba = new Uint8Array(4 * w * h);
    gl.readPixels(0, 0, w, h, gl.RGBA, gl.UNSIGNED_BYTE, rgba);
    return rgba;
  };
}

/** Returns whether the first bytes are of a PNG or JPEG file with one channel of colour. */
export function isGrey(head) {
  if (head[0] === 0x89 && head[1] === 0x50) return head[25] === 0 || head[25] === 4;
  if (head[0] !== 0xff || head[1] !== 0xd8) return false;
  for (let at = 2; at + 9 < head.length && head[at] === 0xff; ) {
    const marker = head[at + 1];
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) return head[at + 9] === 1;
    at += 2 + 256 * head[at + 2] + head[at + 3];
  }
  return false;
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function chunk(kind, data) {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  for (let i = 0; i < 4; i++) bytes[4 + i] = kind.charCodeAt(i);
  bytes.set(data, 8);
  let crc = 0xffffffff;
  for (let i = 4; i < 8 + data.length; i++) crc = CRC[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  view.setUint32(8 + data.length, ~crc);
  return bytes;
}

/** Returns a picture, as of `read`, as a PNG file. */
export async function toPng({ width, height, data, alpha }) {
  const channels = alpha ? 4 : 3;
  const head = new Uint8Array(13);
  const view = new DataView(head.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  head.set([8, alpha ? 6 : 2, 0, 0, 0], 8);
  const rows = new ReadableStream({
    start() {
      this.y = 0;
    },
    pull(controller) {
      if (this.y === height) return controller.close();
      const row = new Uint8Array(1 + width * channels);
      row[0] = 1; // filter: each pixel minus the one to the left
      for (let x = 0; x < width; x++) {
        const i = this.y * width + x;
        for (let c = 0; c < channels; c++) {
          const value = c < 3 ? data[3 * i + c] : alpha[i];
          const left = x ? (c < 3 ? data[3 * i - 3 + c] : alpha[i - 1]) : 0;
          row[1 + x * channels + c] = value - left;
        }
      }
      this.y++;
      controller.enqueue(row);
    },
  });
  const packed = rows.pipeThrough(new CompressionStream("deflate"));
  const body = new Uint8Array(await new Response(packed).arrayBuffer());
  const signature = new Uint8Array([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]);
  const end = chunk("IEND", new Uint8Array());
  return new Blob([signature, chunk("IHDR", head), chunk("IDAT", body), end], {
    type: "image/png",
  });
}
