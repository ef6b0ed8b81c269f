"use strict";

// Comparison: only what belongs to the chosen protocol is shown.
const protocols = document.querySelectorAll("[name=protocol]");

function showProtocol() {
  const chosen = document.querySelector("[name=protocol]:checked").value;
  for (const part of document.querySelectorAll("[data-protocol]")) {
    part.hidden = part.dataset.protocol !== chosen;
  }
}

protocols.forEach((radio) => radio.addEventListener("change", showProtocol));
if (protocols.length) showProtocol(); // A browser may keep a choice on reload.

// Sorting: numbers by value ("1,234" and "x2", too), empty cells last.
function order(a, b, sign) {
  if (!a || !b) return !a - !b;
  const [m, n] = [a, b].map((text) => Number(text.replace(/^x|,/g, "")));
  if (!Number.isNaN(m) && !Number.isNaN(n)) return sign * (m - n);
  return sign * a.localeCompare(b, "en", { numeric: true });
}

function sort(head) {
  const sign = head.ariaSort === "ascending" ? -1 : 1;
  for (const other of head.parentNode.cells) other.ariaSort = null;
  head.ariaSort = sign > 0 ? "ascending" : "descending";
  const body = head.closest("table").tBodies[0];
  const text = (row) => row.cells[head.cellIndex].textContent;
  body.append(...[...body.rows].sort((a, b) => order(text(a), text(b), sign)));
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sort(button.closest("th")));
}

// Pictures: two of a crop's images, one above the other.
function differenceMap(image, original) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const [map, { data }] = [image, original].map((source) => {
    context.drawImage(source, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  });
  for (let i = 0; i < data.length; i += 4) {
    let sum = 0;
    for (let c = i; c < i + 3; c++) sum += Math.abs(map.data[c] - data[c]);
    map.data.fill(Math.min(sum, 255), i, i + 3);
  }
  context.putImageData(map, 0, 0);
  canvas.role = "img";
  canvas.ariaLabel = `|${image.alt} - HR|`;
  return canvas;
}

function setUp(picture) {
  const stage = picture.querySelector(".stage");
  const layers = picture.querySelector(".layers");
  const slider = picture.querySelector("[type=range]");
  const crops = [...picture.querySelectorAll(".crop")];
  const choice = (name) => picture.querySelector(`[name=${name}]`);

  // The line stands in the visible part of an enlarged picture.
  function place() {
    const x = stage.scrollLeft + (slider.value / 100) * stage.clientWidth;
    layers.style.setProperty("--at", `${(100 * x) / layers.clientWidth}%`);
  }

  function zoom() {
    const factor = choice("zoom").value / (layers.style.getPropertyValue("--zoom") || 1);
    const middle = (from, size) => (from + size / 2) * factor - size / 2;
    const left = middle(stage.scrollLeft, stage.clientWidth);
    const top = middle(stage.scrollTop, stage.clientHeight);
    layers.style.setProperty("--zoom", choice("zoom").value);
    stage.scrollTo(left, top);
    place();
  }

  async function show() {
    const chosen = crops[picture.querySelector("[type=radio]:checked").value];
    const images = [...chosen.querySelectorAll("img")];
    await Promise.all(images.map((image) => image.decode()));
    crops.forEach((crop) => (crop.hidden = crop !== chosen));
    picture.querySelectorAll(".crop canvas").forEach((map) => map.remove());
    images.forEach((image) => (image.className = ""));
    for (const side of ["left", "right"]) {
      const image = images[choice(side).value];
      const shown = choice("map").checked ? differenceMap(image, images.at(-1)) : image;
      shown.className = side; // Of one image on both sides the right one is left.
      if (shown !== image) chosen.append(shown);
    }
  }

  picture.querySelectorAll(".parts canvas").forEach(async (canvas, i) => {
    const original = crops[i].querySelector("img:last-of-type");
    await original.decode();
    canvas.width = canvas.height = 96;
    canvas.getContext("2d").drawImage(original, 0, 0, 96, 96);
  });
  picture.addEventListener("change", show);
  choice("zoom").addEventListener("change", zoom);
  slider.addEventListener("input", place);
  stage.addEventListener("scroll", place);
  addEventListener("resize", place);
  zoom();
  show();
}

document.querySelectorAll(".picture").forEach(setUp);
